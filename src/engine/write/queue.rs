//! The queue between workers and disk: blocks that workers fill, and the threads that write them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tch::Device;

use crate::checkpoint::{ChildWriter, DIRECT_ALIGNMENT};
use crate::engine::torch::ops::{PIECE, WIDEST};
use crate::engine::write::block::{Block, Part};
use crate::error::Result;

/// Bytes that all blocks together should take at most, as far as [`SMALLEST`] allows it.
const BLOCKS_BYTES: usize = 64 << 20;

/// Bytes of a block: large enough for the disk, small enough for a core's cache.
const LARGEST: usize = 1 << 20;
const SMALLEST: usize = 128 << 10;

/// Bytes that all blocks together should take at most where they are page-locked, and those of one at
/// least. Each takes a power of two, to which torch rounds page-locked memory up.
const LOCKED_BYTES: usize = 128 << 20;
const LEAST_LOCKED: usize = 1 << 20;

/// Threads that write, and so requests that the disk has at once.
const THREADS: usize = 4;

/// Blocks that wait or are being written, beyond those that the workers fill.
const WAITING: usize = 8;

/// Where no flush is asked for: blocks that wait for the disk before the page cache takes some.
const SPILL_FROM: usize = WAITING / 2;

/// The blocks of a merge: free, being filled, or waiting to be written.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Something is to be written, or there will be nothing more.
    ready: Condvar,
    /// So much waits that the page cache should help, or there will be nothing more.
    behind: Condvar,
    /// A block is free, or everything is written.
    free: Condvar,
    /// Bytes of a block, and how many may be put into it at once.
    size: usize,
    room: usize,
    most: usize,
    spills: bool,
    device: Device,
}

/// What a thread that writes does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Writes everything, past the page cache where possible.
    Writes,
    /// Writes to the page cache what the disk is too slow for.
    Spills,
}

#[derive(Default)]
struct State {
    free: Vec<Block>,
    made: usize,
    waiting: VecDeque<Part>,
    being_written: usize,
    /// Per storage: parts that are not written yet, over all children.
    unwritten: HashMap<usize, usize>,
    /// Storages of which all parts were put, but not all are written.
    nearly_whole: HashSet<usize>,
    over: bool,
    failed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} blocks, {} waiting", self.made, self.waiting.len())
    }
}

impl Queue {
    /// For this many workers, each of which fills a block of every child at a time. `chunk`: the device
    /// from which the children are copied into the blocks, and the most bytes that are at once.
    pub(crate) fn new(
        workers: usize,
        children: &[ChildWriter],
        chunk: Option<(Device, usize)>,
    ) -> Queue {
        // A flush at the end would wait for the page cache, so nothing is gained by filling it.
        let spills = children.iter().any(|child| !child.is_flushed());
        let mut queue = Queue::of(workers, children.len(), spills);
        if let Some((device, bytes)) = chunk {
            queue.device = device;
            queue.make_room(bytes);
        }
        queue
    }

    pub(crate) fn of(workers: usize, children: usize, spills: bool) -> Queue {
        // A worker has one block more while it copies the tail of a full one.
        let in_hands = workers.max(1).saturating_mul(children.saturating_add(1));
        let most = in_hands.saturating_add(WAITING);
        let fit = (BLOCKS_BYTES / most).clamp(SMALLEST, LARGEST);
        let size = if fit.is_power_of_two() { fit } else { fit.next_power_of_two() / 2 };
        Queue {
            state: Mutex::default(),
            ready: Condvar::new(),
            behind: Condvar::new(),
            free: Condvar::new(),
            size,
            room: PIECE * WIDEST,
            most,
            spills,
            device: Device::Cpu,
        }
    }

    /// Lets the blocks take chunks of this many bytes whole, or in a few parts where all blocks together
    /// would take too much memory.
    fn make_room(&mut self, chunk: usize) {
        self.size = SMALLEST;
        let besides = self.size + 2 * DIRECT_ALIGNMENT;
        let fit = (LOCKED_BYTES / self.most).max(1);
        let all = (1 << fit.ilog2()).min((chunk + besides).next_power_of_two()).max(LEAST_LOCKED);
        self.room = all - besides;
    }

    /// The most bytes that a block takes at once.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// The threads that are to call [`Queue::run`].
    pub(crate) fn threads(&self) -> impl Iterator<Item = Role> + use<> {
        let spills = self.spills.then_some(Role::Spills);
        std::iter::repeat_n(Role::Writes, THREADS).chain(spills)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, on: &Condvar, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        on.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// A block to fill, once there is one.
    ///
    /// # Errors
    /// [`Kind::Resource`](crate::error::Kind::Resource) where there is no memory.
    pub(crate) fn block(&self) -> Result<Block> {
        let mut state = self.lock();
        loop {
            if let Some(block) = state.free.pop() {
                return Ok(block);
            }
            // After a failure nothing is waited for: the workers end soon.
            if state.made < self.most || state.failed {
                state.made += 1;
                drop(state);
                return Block::new(self.size, self.room, self.device);
            }
            state = self.wait(&self.free, state);
        }
    }

    /// Takes back an empty block.
    pub(crate) fn give_back(&self, block: Block) {
        self.lock().free.push(block);
        self.free.notify_all();
    }

    /// Takes a part that is to be written.
    pub(crate) fn put(&self, part: Part) {
        let mut state = self.lock();
        if state.failed {
            state.free.push(part.block);
        } else {
            *state.unwritten.entry(part.storage).or_default() += 1;
            state.waiting.push_back(part);
        }
        let behind = state.waiting.len() > SPILL_FROM;
        drop(state);
        self.ready.notify_one();
        if behind {
            self.behind.notify_one();
        }
    }

    /// All parts of a storage were put. True if all are written, too; else [`Queue::run`] tells when
    /// they are.
    pub(crate) fn is_whole(&self, storage: usize) -> bool {
        let mut state = self.lock();
        let whole = !state.unwritten.contains_key(&storage);
        if !whole {
            state.nearly_whole.insert(storage);
        }
        whole
    }

    /// Waits until everything that was put is written, or writing failed.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        while !state.failed && (!state.waiting.is_empty() || state.being_written > 0) {
            state = self.wait(&self.free, state);
        }
    }

    /// Blocks that are neither free nor given back.
    #[cfg(test)]
    pub(crate) fn blocks_out(&self) -> usize {
        let state = self.lock();
        state.made - state.free.len()
    }

    /// No more will be put: [`Queue::run`] ends when all is written.
    pub(crate) fn end(&self) {
        self.lock().over = true;
        self.ready.notify_all();
        self.behind.notify_all();
    }

    /// Has part by part written until [`Queue::end`], and tells `whole` of each storage all of whose
    /// parts were put and are written.
    ///
    /// # Errors
    /// Those of `write` and `whole`; nothing is written any more then, by any thread.
    pub(crate) fn run(
        &self,
        role: Role,
        write: impl Fn(Role, &Part) -> Result<()>,
        whole: impl Fn(usize) -> Result<()>,
    ) -> Result<()> {
        let spills = role == Role::Spills;
        let (signal, from) = if spills { (&self.behind, SPILL_FROM) } else { (&self.ready, 0) };
        loop {
            let mut state = self.lock();
            let part = loop {
                if state.waiting.len() > from
                    && let Some(part) = state.waiting.pop_front()
                {
                    break part;
                }
                if state.over || state.failed {
                    return Ok(());
                }
                state = self.wait(signal, state);
            };
            state.being_written += 1;
            drop(state);
            let mut result = write(role, &part);
            let mut state = self.lock();
            if result.is_ok() && state.written(part.storage) {
                drop(state);
                result = whole(part.storage);
                state = self.lock();
            }
            state.being_written -= 1;
            state.free.push(part.block);
            if result.is_err() {
                state.failed = true;
                let dropped = std::mem::take(&mut state.waiting);
                state.free.extend(dropped.into_iter().map(|part| part.block));
            }
            drop(state);
            self.free.notify_all();
            if result.is_err() {
                self.ready.notify_all();
                self.behind.notify_all();
            }
            result?;
        }
    }
}

impl State {
    /// A part of a storage is written; whether the storage is whole by it.
    fn written(&mut self, storage: usize) -> bool {
        match self.unwritten.get_mut(&storage) {
            Some(left) if *left > 1 => {
                *left -= 1;
                false
            }
            _ => {
                self.unwritten.remove(&storage);
                self.nearly_whole.remove(&storage)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::{Error, Kind};

    /// Counts parts and whole storages, or fails.
    #[derive(Default)]
    struct Counts {
        parts: AtomicUsize,
        whole: AtomicUsize,
        broken: bool,
    }

    impl Counts {
        fn run(&self, queue: &Queue, role: Role) -> Result<()> {
            queue.run(role, |_, _| self.write(), |_| self.whole())
        }
        fn write(&self) -> Result<()> {
            self.parts.fetch_add(1, Ordering::Relaxed);
            if self.broken { Err(Error::new(Kind::Io, "the disk is gone")) } else { Ok(()) }
        }
        fn whole(&self) -> Result<()> {
            self.whole.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    fn part(block: Block, storage: usize) -> Part {
        Part { child: 0, storage, offset: 0, block, from: 0, length: 1 }
    }

    #[test]
    fn every_part_is_written_once_though_blocks_are_few() {
        let (queue, counts) = (Queue::of(2, 1, true), Counts::default());
        std::thread::scope(|scope| {
            for role in queue.threads() {
                let (queue, counts) = (&queue, &counts);
                scope.spawn(move || counts.run(queue, role).unwrap());
            }
            for number in 0..100 {
                queue.put(part(queue.block().unwrap(), number / 4));
            }
            queue.drain();
            assert_eq!(counts.parts.load(Ordering::Relaxed), 100);
            queue.end();
        });
        // Two workers with two blocks each, and the queue.
        assert!(queue.lock().made <= 4 + WAITING);
    }

    #[test]
    fn a_storage_is_whole_when_its_last_part_is_written() {
        let (queue, counts) = (Queue::of(1, 1, false), Counts::default());
        for storage in [7, 7, 8] {
            queue.put(part(queue.block().unwrap(), storage));
        }
        assert!(!queue.is_whole(7));
        queue.end();
        counts.run(&queue, Role::Writes).unwrap();
        // 8 was never said to be complete.
        assert_eq!(counts.whole.load(Ordering::Relaxed), 1);
        assert!(queue.is_whole(8) && queue.is_whole(9));
    }

    #[test]
    fn after_a_failure_nothing_is_written_and_nobody_waits() {
        let queue = Queue::of(1, 1, false);
        let counts = Counts { broken: true, ..Counts::default() };
        std::thread::scope(|scope| {
            let (queue, counts) = (&queue, &counts);
            let writer = scope.spawn(move || counts.run(queue, Role::Writes));
            for storage in 0..100 {
                queue.put(part(queue.block().unwrap(), storage));
            }
            queue.drain();
            queue.end();
            assert_eq!(writer.join().unwrap().unwrap_err().kind(), Kind::Io);
        });
        assert_eq!(counts.parts.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn blocks_get_smaller_where_there_are_many() {
        assert_eq!(Queue::of(2, 1, false).size, 1 << 20);
        assert_eq!(Queue::of(16, 5, false).size, 512 << 10);
        assert_eq!(Queue::of(64, 16, false).size, 128 << 10);
    }

    #[test]
    fn chunks_come_down_whole_where_there_is_memory_for_it() {
        for (workers, children, chunk) in [
            (1, 1, 1 << 20),
            (4, 1, 4 << 20),
            (16, 1, 4 << 20),
            (16, 16, 4 << 20),
            (16, 1, 16 << 20),
        ] {
            let mut queue = Queue::of(workers, children, false);
            queue.make_room(chunk);
            let block = queue.size + queue.room + 2 * DIRECT_ALIGNMENT;
            assert!(block.is_power_of_two() && queue.room >= PIECE * WIDEST, "{queue:?}");
            let all = block * queue.most;
            assert!(all <= LOCKED_BYTES || block == LEAST_LOCKED, "{queue:?}");
            assert_eq!(queue.room >= chunk, workers <= 4, "{queue:?}");
        }
    }
}
