//! A handler of SIGBUS, the signal that ends a program when it reads bytes of a mapped file that the system cannot supply:
//! the file was cut short while it was mapped, or the disk failed. The handler prints the file's name first.
//!
//! Mapped files are listed from the call of [`report`] on, in nodes that are never freed, so that the handler reads the
//! list without a lock.

#[cfg(unix)]
pub(crate) use unix::Named;
#[cfg(unix)]
pub use unix::report;

#[cfg(not(unix))]
pub(crate) use elsewhere::Named;
#[cfg(not(unix))]
pub use elsewhere::report;

#[cfg(unix)]
mod unix {
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use std::ptr;
    use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

    /// A mapped file.
    struct Node {
        start: usize,
        /// 0 once it is mapped no more.
        len: AtomicUsize,
        path: Box<[u8]>,
        next: *mut Node,
    }

    static NODES: AtomicPtr<Node> = AtomicPtr::new(ptr::null_mut());
    static REPORTS: AtomicBool = AtomicBool::new(false);

    /// Installs the handler: reading bytes of a mapped file that the system cannot supply ends the process with status 1 and one
    /// line on stderr that names the file. A program calls it before it opens files; a library leaves signals alone.
    pub fn report() {
        REPORTS.store(true, Ordering::Relaxed);
        // SAFETY: the action is zeroed but for the handler, which has the signature that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_bus_error as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
        }
    }

    /// Calls nothing but `write`, `_exit` and `signal`, which may be called here.
    extern "C" fn on_bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        const WHY: &[u8] =
            b": its bytes are gone: the file was cut short while it was in use, or the disk failed\n";
        // SAFETY: the system gives a valid `info`; nodes are never freed and change in `len` alone.
        unsafe {
            let at = (*info).si_addr() as usize;
            let mut node = NODES.load(Ordering::Acquire);
            while let Some(file) = node.as_ref() {
                if at.wrapping_sub(file.start) < file.len.load(Ordering::Relaxed) {
                    for part in [&b"error: "[..], &file.path, WHY] {
                        libc::write(2, part.as_ptr().cast(), part.len());
                    }
                    libc::_exit(1);
                }
                node = file.next;
            }
            // Nothing of ours: the instruction runs again, with what the system does by itself.
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
        }
    }

    /// Keeps a mapping in the list.
    #[derive(Debug)]
    pub(crate) struct Named(Option<&'static AtomicUsize>);

    impl Named {
        /// Lists the mapping of a file, if anybody wants to know.
        pub(crate) fn new(map: &[u8], path: &Path) -> Self {
            if !REPORTS.load(Ordering::Relaxed) {
                return Named(None);
            }
            let path = path.as_os_str().as_bytes().into();
            let (start, len) = (map.as_ptr() as usize, AtomicUsize::new(map.len()));
            let node = Box::leak(Box::new(Node { start, len, path, next: ptr::null_mut() }));
            let new: *mut Node = node;
            let mut head = NODES.load(Ordering::Acquire);
            loop {
                // SAFETY: nobody else has the node yet.
                unsafe { (*new).next = head };
                match NODES.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire) {
                    // SAFETY: the node is never freed, and only its length changes, which is atomic.
                    Ok(_) => return Named(Some(unsafe { &(*new).len })),
                    Err(other) => head = other,
                }
            }
        }
    }

    impl Drop for Named {
        fn drop(&mut self) {
            if let Some(len) = self.0 {
                len.store(0, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(not(unix))]
mod elsewhere {
    use std::path::Path;

    /// Nothing: other systems have no such signal.
    pub fn report() {}

    #[derive(Debug)]
    pub(crate) struct Named;

    impl Named {
        pub(crate) fn new(_: &[u8], _: &Path) -> Self {
            Named
        }
    }
}
