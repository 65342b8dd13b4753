//! Settings of the system's allocator: how much freed memory it keeps, and when it returns memory to the system.
//!
//! glibc keeps freed memory in an arena for each few threads, and so a server that has read large requests on many threads
//! keeps a multiple of what one of them needed. Few arenas, large blocks that are mapped one by one, and a trim when memory
//! has become free bring the resident set back to what is in use. Other allocators give it back by themselves.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::c_int;

    unsafe extern "C" {
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
        fn malloc_trim(pad: usize) -> c_int;
    }

    const TRIM_THRESHOLD: c_int = -1;
    const MMAP_THRESHOLD: c_int = -3;
    const ARENA_MAX: c_int = -8;

    pub(crate) fn set_up() {
        for (parameter, value) in [(ARENA_MAX, 4), (MMAP_THRESHOLD, 256 << 10), (TRIM_THRESHOLD, 1 << 20)] {
            // SAFETY: sets a number of the allocator; a system that knows it not returns 0 and changes nothing.
            unsafe { mallopt(parameter, value) };
        }
    }

    pub(crate) fn give_back() {
        // SAFETY: takes no pointer; it locks the arenas one by one and releases pages that nothing is in.
        unsafe { malloc_trim(0) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod glibc {
    pub(crate) fn set_up() {}

    pub(crate) fn give_back() {}
}

pub(crate) use glibc::{give_back, set_up};
