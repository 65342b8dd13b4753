//! Mapped weights on their way into memory.
//!
//! A page of a mapped file is read when it is first touched, alone and while its thread waits. So what a model will need is
//! read beside it: in ranges of megabytes, which Linux keeps in pages of 2 MiB where the file system can, for processors to
//! find them with fewer steps (`docs/lab/2026-11-fast-numbers-sapphire-rapids.md` has what that gives).

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use moeflux_checkpoint::{Expert, Span};

use crate::model::Model;

/// Of one call: so much is read before a range that is wanted sooner has its turn. Pages of 2 MiB are whole in it.
const PIECE: u64 = 8 << 20;
/// What one thread asks for and waits for does not keep a fast disk busy.
const THREADS: usize = 3;
/// Between ranges that are read as one: names, alignment, tensors that nobody uses.
const GAP: u64 = 1 << 16;
/// How long a step's own few reads have the disk to themselves.
const REST: Duration = Duration::from_millis(100);

/// Threads that read ranges of a model's files; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Loading {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    model: Arc<Model>,
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// What steps wait for, or will.
    wanted: VecDeque<Span>,
    /// What will be wanted one day.
    rest: VecDeque<Span>,
    /// When the rest may go on.
    rests_until: Option<Instant>,
    closed: bool,
}

impl Loading {
    /// Begins with what every token reads, and goes on with all experts if they are to stay in memory.
    pub(super) fn start(model: Arc<Model>, experts: bool) -> Self {
        let table = model.weights();
        let dense = table.matrices().iter().flat_map(|named| named.matrix.spans());
        let mut queue = Queue { wanted: joined(dense).into(), ..Queue::default() };
        if experts {
            let experts = table.experts().iter().flat_map(|layer| &layer.experts);
            let all = experts.flat_map(Expert::matrices).flat_map(|(_, matrix)| matrix.spans());
            queue.rest = joined(all).into();
        }
        let shared = Arc::new(Shared { model, queue: Mutex::new(queue), more: Condvar::new() });
        let start = |i| {
            let shared = shared.clone();
            let named = std::thread::Builder::new().name(format!("moeflux-load-{i}"));
            named.spawn(move || shared.work())
        };
        // Whatever they do not read is read when it is touched.
        let threads = (0..THREADS).map_while(|i| start(i).ok()).collect();
        Loading { shared, threads }
    }

    /// Reads these before the rest.
    pub(super) fn want(&self, spans: impl Iterator<Item = Span>) {
        self.shared.update(|queue| queue.wanted.extend(joined(spans)));
    }

    /// Leaves the disk to others for a moment.
    pub(super) fn rest(&self) {
        self.shared.update(|queue| queue.rests_until = Some(Instant::now() + REST));
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.shared.update(|queue| queue.closed = true);
        for thread in self.threads.drain(..) {
            // It does nothing that panics.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn update(&self, change: impl FnOnce(&mut Queue)) {
        change(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        self.more.notify_all();
    }

    fn work(&self) {
        let checkpoint = self.model.checkpoint();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while !queue.closed {
            let left = queue
                .rests_until
                .map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
            if let Some(piece) = queue.piece(left.is_zero()) {
                drop(queue);
                checkpoint.bring(piece);
                queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            } else if queue.rest.is_empty() {
                queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
            } else {
                queue = self.more.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

impl Queue {
    /// Takes the beginning of the first span, up to where a piece of the file ends.
    fn piece(&mut self, of_rest: bool) -> Option<Span> {
        let spans = if self.wanted.is_empty() && of_rest { &mut self.rest } else { &mut self.wanted };
        let first = spans.front_mut()?;
        let len = first.len.min(PIECE - first.offset % PIECE);
        let piece = Span { len, ..*first };
        first.offset += len;
        first.len -= len;
        if first.len == 0 {
            spans.pop_front();
        }
        Some(piece)
    }
}

/// The spans in the order of files, neighbours as one.
fn joined(spans: impl Iterator<Item = Span>) -> Vec<Span> {
    let mut sorted: Vec<Span> = spans.collect();
    sorted.sort_unstable_by_key(|span| (span.file, span.offset));
    let mut joined: Vec<Span> = Vec::new();
    for span in sorted {
        match joined.last_mut() {
            Some(last) if last.file == span.file && span.offset <= last.offset + last.len + GAP => {
                last.len = last.len.max(span.offset + span.len - last.offset);
            }
            _ => joined.push(span),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(file: u32, offset: u64, len: u64) -> Span {
        Span { file, offset, len }
    }

    #[test]
    fn neighbours_are_read_as_one() {
        let spans = [span(1, 0, 10), span(0, GAP + 5, 5), span(0, 0, 5), span(0, 3 * GAP, 1), span(0, 0, 5)];
        let expected = [span(0, 0, GAP + 10), span(0, 3 * GAP, 1), span(1, 0, 10)];
        assert_eq!(joined(spans.into_iter()), expected);
    }

    #[test]
    fn pieces_end_where_pages_do() {
        let wanted = VecDeque::from([span(0, PIECE - 1, PIECE + 2), span(1, 7, 1)]);
        let rest = VecDeque::from([span(2, 0, 3)]);
        let mut queue = Queue { wanted, rest, ..Queue::default() };
        let expected = [span(0, PIECE - 1, 1), span(0, PIECE, PIECE), span(0, 2 * PIECE, 1), span(1, 7, 1)];
        assert_eq!(std::iter::from_fn(|| queue.piece(false)).collect::<Vec<_>>(), expected);
        assert_eq!(queue.piece(true), Some(span(2, 0, 3)));
        assert_eq!(queue.piece(true), None);
    }
}
