//! A target that fails as devices do.

use super::{Io, Target, io_error};
use crate::error::Result;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Which operations a fault is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum On {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Flushes.
    Flush,
    /// Punches and discards.
    Punch,
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The operation fails and does nothing: `EIO`.
    Error,
    /// Only so many first bytes are written, or read; the operation fails.
    Torn(u64),
    /// The operation says that it succeeded and does nothing: a lost write, a dropped flush. A read gives zeroes.
    Lost,
    /// One bit of what is read or written is another one. On a flush or punch, as [`Fault::Error`].
    FlippedBit(u64),
    /// The operation fails, and all after it: the device is gone.
    Gone,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    on: On,
    /// Operations of this kind that still pass.
    pass: u64,
    range: (u64, u64),
    fault: Fault,
    again: bool,
}

/// A target that passes everything on to another, but for the faults that were added.
///
/// For tests, in the library so that programs built on it can test themselves with it; it costs nothing where it is not used.
///
/// # Examples
/// ```
/// use libxfsr::target::{Fault, Faulty, On, Target, Xfile};
/// use std::sync::Arc;
/// let disk = Faulty::new(Arc::new(Xfile::new("disk")?));
/// disk.add(On::Write, 1, Fault::Lost);
/// disk.write_at(b"one", 0)?;
/// disk.write_at(b"two", 0)?;
/// let mut bytes = [0; 3];
/// disk.read_at(&mut bytes, 0)?;
/// assert_eq!(&bytes, b"one");
/// # Ok::<(), libxfsr::Error>(())
/// ```
#[derive(Debug)]
pub struct Faulty {
    below: Arc<dyn Target>,
    rules: Mutex<Vec<Rule>>,
    gone: AtomicBool,
}

impl Faulty {
    /// Over `below`, without faults.
    pub fn new(below: Arc<dyn Target>) -> Self {
        Self { below, rules: Mutex::default(), gone: AtomicBool::new(false) }
    }

    /// After `pass` more operations of that kind the next one suffers the fault, once.
    pub fn add(&self, on: On, pass: u64, fault: Fault) {
        self.rules.lock().push(Rule { on, pass, range: (0, u64::MAX), fault, again: false });
    }

    /// Every operation of that kind which touches the range, from an offset to before another, suffers the fault: a bad sector.
    pub fn add_range(&self, on: On, from: u64, to: u64, fault: Fault) {
        self.rules.lock().push(Rule { on, pass: 0, range: (from, to), fault, again: true });
    }

    fn fault(&self, on: On, offset: u64, len: u64) -> Option<Fault> {
        if self.gone.load(Ordering::SeqCst) {
            return Some(Fault::Gone);
        }
        let mut rules = self.rules.lock();
        let mut hit = None;
        for (i, rule) in rules.iter_mut().enumerate() {
            let everywhere = rule.range == (0, u64::MAX);
            let touches = offset < rule.range.1 && offset.saturating_add(len) > rule.range.0;
            if rule.on != on || !(everywhere || touches) {
                continue;
            }
            match rule.pass.checked_sub(1) {
                Some(left) => rule.pass = left,
                None => hit = hit.or(Some(i)),
            }
        }
        let rule = *rules.get(hit?)?;
        if !rule.again {
            rules.remove(hit?);
        }
        if rule.fault == Fault::Gone {
            self.gone.store(true, Ordering::SeqCst);
        }
        Some(rule.fault)
    }

    fn error(&self, op: &'static str, offset: u64, len: u64) -> Result<()> {
        Err(io_error(op, self.name(), offset, len, rustix::io::Errno::IO))
    }
}

fn flip(bytes: &mut [u8], bit: u64) {
    let length = bytes.len().max(1) as u64;
    if let Some(b) = bytes.get_mut((bit / 8 % length) as usize) {
        *b ^= 1 << (bit % 8);
    }
}

impl Target for Faulty {
    fn name(&self) -> &str {
        self.below.name()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let len = buf.len() as u64;
        match self.fault(On::Read, offset, len) {
            None => self.below.read_at(buf, offset),
            Some(Fault::Lost) => {
                buf.fill(0);
                Ok(())
            }
            Some(Fault::FlippedBit(bit)) => {
                self.below.read_at(buf, offset)?;
                flip(buf, bit);
                Ok(())
            }
            Some(Fault::Torn(n)) => {
                let n = usize::try_from(n).unwrap_or(usize::MAX).min(buf.len());
                self.below.read_at(buf.get_mut(..n).unwrap_or(&mut []), offset)?;
                self.error("read", offset, len)
            }
            Some(Fault::Error | Fault::Gone) => self.error("read", offset, len),
        }
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let len = buf.len() as u64;
        match self.fault(On::Write, offset, len) {
            None => self.below.write_at(buf, offset),
            Some(Fault::Lost) => Ok(()),
            Some(Fault::FlippedBit(bit)) => {
                let mut wrong = buf.to_vec();
                flip(&mut wrong, bit);
                self.below.write_at(&wrong, offset)
            }
            Some(Fault::Torn(n)) => {
                let n = usize::try_from(n).unwrap_or(usize::MAX).min(buf.len());
                self.below.write_at(buf.get(..n).unwrap_or(buf), offset)?;
                self.error("write", offset, len)
            }
            Some(Fault::Error | Fault::Gone) => self.error("write", offset, len),
        }
    }
    fn flush(&self) -> Result<()> {
        match self.fault(On::Flush, 0, 0) {
            None => self.below.flush(),
            Some(Fault::Lost) => Ok(()),
            Some(_) => self.error("flush", 0, self.len()),
        }
    }
    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        match self.fault(On::Punch, offset, len) {
            None => self.below.punch(offset, len),
            Some(Fault::Lost) => Ok(()),
            Some(Fault::Torn(n)) => {
                self.below.punch(offset, n.min(len))?;
                self.error("punch", offset, len)
            }
            Some(_) => self.error("punch", offset, len),
        }
    }
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        match self.fault(On::Punch, offset, len) {
            None => self.below.discard(offset, len),
            Some(Fault::Lost | Fault::Torn(_)) => Ok(()),
            Some(_) => self.error("discard", offset, len),
        }
    }
    fn len(&self) -> u64 {
        self.below.len()
    }
    fn set_len(&self, len: u64) -> Result<()> {
        if self.gone.load(Ordering::SeqCst) {
            return self.error("set length", 0, len);
        }
        self.below.set_len(len)
    }
    fn io(&self) -> Io {
        self.below.io()
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, Faulty, On};
    use crate::target::{Recorder, Target, Xfile};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn faulty() -> Faulty {
        let x = Xfile::new("disk").unwrap();
        x.write_at(&[1; 4096], 0).unwrap();
        Faulty::new(Arc::new(x))
    }

    fn bytes(t: &dyn Target) -> Vec<u8> {
        let mut b = vec![0; 4096];
        t.read_at(&mut b, 0).unwrap();
        b
    }

    proptest! {
        /// Writes are passed on as they are, but for the one that the fault is for.
        #[test]
        fn one_fault_hits_one_write(
            writes in prop::collection::vec((0u64..3000, 1usize..1000, any::<u8>()), 1..10),
            which in 0usize..12,
            kind in 0u8..5,
            amount in 0u64..1200,
        ) {
            let f = faulty();
            let fault = match kind {
                0 => Fault::Error,
                1 => Fault::Torn(amount),
                2 => Fault::Lost,
                3 => Fault::FlippedBit(amount),
                _ => Fault::Gone,
            };
            f.add(On::Write, which as u64, fault);
            let mut model = vec![1u8; 4096];
            for (i, (at, len, byte)) in writes.iter().enumerate() {
                let result = f.write_at(&vec![*byte; *len], *at);
                let at = *at as usize;
                let (hit, after) = (i == which, i > which && kind == 4);
                prop_assert_eq!(result.is_err(), hit && (kind < 2 || kind == 4) || after);
                if after || hit && [0, 2, 4].contains(&kind) {
                    continue;
                }
                let n = if hit && kind == 1 { (*len).min(amount as usize) } else { *len };
                model[at..at + n].fill(*byte);
                if hit && kind == 3 {
                    model[at + amount as usize / 8 % len] ^= 1 << (amount % 8);
                }
            }
            if kind == 4 && which < writes.len() {
                prop_assert!(f.read_at(&mut [0], 0).is_err() && f.flush().is_err());
            } else {
                prop_assert_eq!(bytes(&f), model);
            }
        }
    }

    #[test]
    fn a_bad_sector_stays_bad() {
        let f = faulty();
        f.add_range(On::Read, 1024, 1536, Fault::Error);
        for _ in 0..3 {
            assert!(f.read_at(&mut [0; 600], 500).is_err());
            f.read_at(&mut [0; 512], 512).unwrap();
            f.read_at(&mut [0; 512], 1536).unwrap();
        }
    }

    #[test]
    fn a_dropped_flush_loses_what_a_crash_takes() {
        let x = Xfile::new("disk").unwrap();
        x.write_at(&[1; 4096], 0).unwrap();
        let recorder = Arc::new(Recorder::new(Arc::new(x)).unwrap());
        let f = Faulty::new(recorder.clone());
        f.add(On::Flush, 0, Fault::Lost);
        f.write_at(&[2], 0).unwrap();
        f.flush().unwrap();
        assert_eq!(bytes(&recorder.crash(u64::MAX, &mut |_| false).unwrap())[0], 1);
        f.flush().unwrap();
        assert_eq!(bytes(&recorder.crash(u64::MAX, &mut |_| false).unwrap())[0], 2);
    }
}
