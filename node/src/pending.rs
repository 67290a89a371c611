//! Who waits for what: requests and reads of this member's clients, each answered at most once (INV-R4).

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Spreads the locks: callers, the apply thread and the consensus thread all touch it.
const SHARDS: u64 = 16;

/// Waiters by number.
#[derive(Debug)]
pub struct Pending<T> {
    next: AtomicU64,
    /// Set before the waiters are sent away, and read with their shard locked: nobody slips in behind.
    ended: AtomicBool,
    shards: Vec<Mutex<HashMap<u64, oneshot::Sender<T>>>>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(1),
            ended: AtomicBool::new(false),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl<T> Pending<T> {
    /// A new waiter: its number, and where its answer comes. After the end it learns at once that none will.
    pub fn wait(&self) -> (u64, oneshot::Receiver<T>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, waiter) = oneshot::channel();
        let mut shard = self.shard(number).lock();
        if !self.ended.load(Ordering::SeqCst) {
            shard.insert(number, answer);
        }
        (number, waiter)
    }

    /// Answers a waiter; false if it is gone.
    pub fn answer(&self, number: u64, answer: T) -> bool {
        let waiter = self.shard(number).lock().remove(&number);
        waiter.is_some_and(|waiter| waiter.send(answer).is_ok())
    }

    /// The waiter gave up.
    pub fn forget(&self, number: u64) {
        self.shard(number).lock().remove(&number);
    }

    /// No answer will come any more: every waiter learns so, and whoever comes after them.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        for shard in &self.shards {
            shard.lock().clear();
        }
    }

    fn shard(&self, number: u64) -> &Mutex<HashMap<u64, oneshot::Sender<T>>> {
        let at = usize::try_from(number % SHARDS).expect("a small number");
        &self.shards[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_answered_once_or_learns_that_no_answer_comes() {
        let pending = Pending::default();
        let (first, answered) = pending.wait();
        let (second, left) = pending.wait();
        assert!(pending.answer(first, 1));
        assert!(!pending.answer(first, 2));
        pending.end();
        assert_eq!(answered.await, Ok(1));
        assert!(left.await.is_err());
        assert!(!pending.answer(second, 3));
        let (late, left) = pending.wait();
        assert!(left.await.is_err(), "who comes after the end does not wait");
        assert!(!pending.answer(late, 4));
    }
}
