//! The order in which a thread takes locks, checked in builds for development, for a filesystem that is open ([`InodeLocks::check_order`](super::InodeLocks::check_order)).
//!
//! Inodes ascending, then AGIs ascending, then AGFs ascending. Two threads that keep to one order never wait for each other in a ring. A thread
//! that does not keep to it is a mistake of this library, whether or not another one happens to wait: so it is told at once, and where it is made.
//!
//! One exception: whoever holds an AGI may lock an inode that is free, or was until then. Nobody holds such a lock and waits for something else:
//! inodes that somebody uses are not freed ([`crate::engine`] counts users), and who looks at one that nobody uses takes no second lock.

use crate::units::{AgNumber, Ino};

/// What a lock is of; the order is that in which they are taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Rank {
    /// An inode.
    Inode(Ino),
    /// Inodes of an AG.
    Agi(AgNumber),
    /// Free space of an AG.
    Agf(AgNumber),
}

#[cfg(debug_assertions)]
mod held {
    use super::Rank;
    use parking_lot::Mutex;
    use std::cell::OnceCell;
    use std::sync::Arc;

    type Ranks = Arc<Mutex<Vec<Rank>>>;

    thread_local! {
        static HELD: OnceCell<Ranks> = const { OnceCell::new() };
    }

    /// That a lock is held, by the thread that took it: wherever this is dropped.
    #[derive(Debug)]
    pub(crate) struct Held {
        rank: Rank,
        of: Option<Ranks>,
    }

    /// The thread's own; none while it ends.
    fn ranks() -> Option<Ranks> {
        HELD.try_with(|h| h.get_or_init(Ranks::default).clone()).ok()
    }

    impl Held {
        /// Asks before the lock is waited for.
        pub(crate) fn take(rank: Rank) -> Self {
            let of = ranks();
            if let Some(ranks) = &of {
                let mut ranks = ranks.lock();
                let free = matches!(rank, Rank::Inode(_)) && ranks.iter().any(|r| matches!(r, Rank::Agi(_)));
                let last = ranks.iter().max().copied();
                assert!(
                    free || last.is_none_or(|last| last < rank),
                    "order of locks: {rank:?} is taken behind {last:?}"
                );
                ranks.push(rank);
            }
            Self { rank, of }
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            if let Some(ranks) = &self.of {
                let mut ranks = ranks.lock();
                if let Some(i) = ranks.iter().rposition(|r| *r == self.rank) {
                    ranks.swap_remove(i);
                }
            }
        }
    }
}

#[cfg(not(debug_assertions))]
mod held {
    /// Nothing: the order is checked in builds for development.
    #[derive(Debug)]
    pub(crate) struct Held;

    impl Held {
        pub(crate) fn take(_rank: super::Rank) -> Self {
            Self
        }
    }
}

pub(crate) use held::Held;

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::{Held, Rank};
    use crate::txn::InodeLocks;
    use crate::units::{AgNumber, Ino};

    #[test]
    fn the_order_is_inodes_then_headers() {
        let locks = InodeLocks::default();
        locks.check_order();
        let held = (locks.lock(Ino(3)), locks.lock_shared(Ino(7)));
        let headers = [Rank::Agi(AgNumber(0)), Rank::Agi(AgNumber(2)), Rank::Agf(AgNumber(1))].map(Held::take);
        // A free one.
        drop(locks.lock(Ino(5)));
        drop(headers);
        drop(held);
        drop(locks.lock(Ino(1)));
    }

    #[test]
    #[should_panic(expected = "order of locks: Inode(Ino(3)) is taken behind Some(Inode(Ino(7)))")]
    fn inodes_are_locked_in_ascending_order() {
        let locks = InodeLocks::default();
        locks.check_order();
        let _held = locks.lock_shared(Ino(7));
        let _ = locks.lock(Ino(3));
    }

    #[test]
    #[should_panic(expected = "order of locks")]
    fn whoever_locks_an_inode_twice_is_told_and_does_not_wait_for_ever() {
        let locks = InodeLocks::default();
        locks.check_order();
        let _held = locks.lock_shared(Ino(7));
        let _ = locks.lock(Ino(7));
    }

    #[test]
    #[should_panic(expected = "Agi(AgNumber(1)) is taken behind Some(Agf(AgNumber(0)))")]
    fn inodes_of_an_ag_come_before_free_space_of_any() {
        let _agf = Held::take(Rank::Agf(AgNumber(0)));
        let _ = Held::take(Rank::Agi(AgNumber(1)));
    }

    #[test]
    fn a_lock_may_be_given_back_by_another_thread() {
        let locks = InodeLocks::default();
        locks.check_order();
        let held = locks.lock(Ino(9));
        std::thread::spawn(move || drop(held)).join().unwrap();
        drop(locks.lock(Ino(2)));
    }
}
