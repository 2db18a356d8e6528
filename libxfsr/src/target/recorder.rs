//! Every change in order, to make from it what a crash would leave.

use super::{Io, Overlay, Target};
use crate::error::Result;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Bytes were written at an offset.
    Write(u64, Vec<u8>),
    /// A range, offset and length, was made to read as zeroes.
    Punch(u64, u64),
    /// Everything before is durable.
    Flush,
}

/// A change and when it was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Number in the order of all recorders that share a clock.
    pub time: u64,
    /// What was done.
    pub change: Change,
}

/// A target that keeps what is written to it in memory and remembers each change. What lies below is never written, so that
/// [`Recorder::crash`] can make, at any time, the image that a crash at any earlier time would have left.
///
/// For tests, in the library so that programs built on it can test themselves with it; it costs nothing where it is not used.
#[derive(Debug)]
pub struct Recorder {
    below: Arc<dyn Target>,
    live: Overlay,
    clock: Arc<AtomicU64>,
    events: Mutex<Vec<Event>>,
}

impl Recorder {
    /// Over `below`.
    ///
    /// # Errors
    /// When memory cannot be had.
    pub fn new(below: Arc<dyn Target>) -> Result<Self> {
        Self::with_clock(below, Arc::default())
    }

    /// With a clock that other recorders share, so that changes of several targets have one order.
    ///
    /// # Errors
    /// As [`Recorder::new`].
    pub fn with_clock(below: Arc<dyn Target>, clock: Arc<AtomicU64>) -> Result<Self> {
        Ok(Self { live: Overlay::new(below.clone())?, below, clock, events: Mutex::default() })
    }

    /// What was done so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    /// The image that a crash leaves: all changes before `time` up to the last flush among them, and of the later ones those that
    /// `keep` wants, for a device may have written any of them.
    ///
    /// # Errors
    /// Those of the target below.
    pub fn crash(&self, time: u64, keep: &mut dyn FnMut(&Event) -> bool) -> Result<Overlay> {
        let image = Overlay::new(self.below.clone())?;
        let events = self.events.lock();
        let before = events.get(..events.partition_point(|e| e.time < time)).unwrap_or(&[]);
        let durable = before.iter().rposition(|e| e.change == Change::Flush).map_or(0, |last| last + 1);
        for (i, event) in before.iter().enumerate() {
            if i < durable || keep(event) {
                match &event.change {
                    Change::Write(offset, bytes) => image.write_at(bytes, *offset)?,
                    Change::Punch(offset, len) => image.punch(*offset, *len)?,
                    Change::Flush => {}
                }
            }
        }
        Ok(image)
    }

    /// Does and remembers, in one step, so that the order of the events is that of the changes.
    fn record(&self, change: Change, act: impl FnOnce(&Overlay) -> Result<()>) -> Result<()> {
        let mut events = self.events.lock();
        act(&self.live)?;
        let time = self.clock.fetch_add(1, Ordering::SeqCst);
        events.push(Event { time, change });
        Ok(())
    }
}

impl Target for Recorder {
    fn name(&self) -> &str {
        self.below.name()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.live.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.record(Change::Write(offset, buf.to_vec()), |live| live.write_at(buf, offset))
    }
    fn flush(&self) -> Result<()> {
        self.record(Change::Flush, |_| Ok(()))
    }
    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.record(Change::Punch(offset, len), |live| live.punch(offset, len))
    }
    fn discard(&self, _offset: u64, _len: u64) -> Result<()> {
        Ok(())
    }
    fn len(&self) -> u64 {
        self.live.len()
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.live.set_len(len)
    }
    fn io(&self) -> Io {
        self.live.io()
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Recorder};
    use crate::target::{Target, Xfile};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn base() -> Arc<Xfile> {
        let x = Xfile::new("base").unwrap();
        x.write_at(&[7; 10_000], 0).unwrap();
        Arc::new(x)
    }

    fn bytes(t: &dyn Target) -> Vec<u8> {
        let mut b = vec![0; 10_000];
        t.read_at(&mut b, 0).unwrap();
        b
    }

    proptest! {
        /// Each prefix equals what the target held at that time, and what lies below is never changed.
        #[test]
        fn a_prefix_is_what_was_there_then(
            steps in prop::collection::vec((0u64..9000, 0usize..1000, any::<u8>(), 0u8..4), 1..12),
        ) {
            let base = base();
            let r = Recorder::new(base.clone()).unwrap();
            let mut states = vec![bytes(&r)];
            for (at, len, byte, what) in steps {
                match what {
                    0 => r.flush().unwrap(),
                    1 => r.punch(at, len as u64).unwrap(),
                    _ => r.write_at(&vec![byte; len], at).unwrap(),
                }
                states.push(bytes(&r));
            }
            for (time, state) in states.iter().enumerate() {
                prop_assert_eq!(&bytes(&r.crash(time as u64, &mut |_| true).unwrap()), state);
            }
            prop_assert_eq!(bytes(&*base), vec![7; 10_000]);
        }
    }

    #[test]
    fn what_was_flushed_stays_and_what_was_not_may_go() {
        let r = Recorder::new(base()).unwrap();
        r.write_at(b"a", 0).unwrap();
        r.flush().unwrap();
        r.write_at(b"b", 1).unwrap();
        r.write_at(b"c", 2).unwrap();
        assert_eq!(bytes(&r.crash(9, &mut |_| false).unwrap())[..3], *b"a\x07\x07");
        let last = |e: &super::Event| e.change == Change::Write(2, b"c".to_vec());
        assert_eq!(bytes(&r.crash(9, &mut |e| last(e)).unwrap())[..3], *b"a\x07c");
        assert_eq!(bytes(&r.crash(1, &mut |_| false).unwrap())[..3], [7; 3]);
        assert_eq!(r.events().len(), 4);
    }
}
