//! An image in memory: the pages of a file that are not holes, shared by many copies, and what a copy changed.

use anyhow::{Context as _, Result};
use libxfsr::target::{Io, Target};
use rustix::fs::SeekFrom;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, RwLock};

const PAGE: u64 = 4096;

type Pages = HashMap<u64, Box<[u8]>>;

/// A target in memory. A clone begins with the same bytes; what is written to it stays in it.
#[derive(Debug)]
pub struct Memory {
    base: Arc<Pages>,
    own: RwLock<Pages>,
    length: u64,
}

impl Clone for Memory {
    fn clone(&self) -> Memory {
        let own = self.own.read().expect("no writer panicked");
        let mut base = Arc::clone(&self.base);
        if !own.is_empty() {
            Arc::make_mut(&mut base).extend(own.iter().map(|(n, page)| (*n, page.clone())));
        }
        Memory { base, own: RwLock::default(), length: self.length }
    }
}

impl Memory {
    /// Zeroes.
    pub fn new(length: u64) -> Memory {
        Memory { base: Arc::default(), own: RwLock::default(), length }
    }

    /// The data of a file; holes take no memory.
    pub fn load(path: &Path) -> Result<Memory> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let length = file.metadata()?.len();
        let (mut pages, mut at) = (Pages::new(), 0);
        while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
            let end = rustix::fs::seek(&file, SeekFrom::Hole(start))?;
            for n in start / PAGE..end.div_ceil(PAGE) {
                let mut page = vec![0; PAGE as usize].into_boxed_slice();
                let part = (length - n * PAGE).min(PAGE) as usize;
                file.read_exact_at(&mut page[..part], n * PAGE)?;
                if page.iter().any(|b| *b != 0) {
                    pages.insert(n, page);
                }
            }
            at = end;
        }
        Ok(Memory { base: Arc::new(pages), own: RwLock::default(), length })
    }

    /// Writes everything that is not zero to a file, which gets the same length.
    pub fn save(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        file.set_len(self.length)?;
        let own = self.own.read().expect("no writer panicked");
        for (n, page) in self.base.iter().chain(own.iter()) {
            let page = own.get(n).unwrap_or(page);
            let part = (self.length - n * PAGE).min(PAGE) as usize;
            file.write_all_at(&page[..part], n * PAGE)?;
        }
        Ok(())
    }

    /// The offsets of pages that hold data, ascending.
    pub fn pages(&self) -> Vec<u64> {
        let own = self.own.read().expect("no writer panicked");
        let all: std::collections::BTreeSet<u64> = self.base.keys().chain(own.keys()).map(|n| n * PAGE).collect();
        all.into_iter().collect()
    }

    fn inside(&self, op: &'static str, offset: u64, len: usize) -> libxfsr::Result<()> {
        if offset.checked_add(len as u64).is_some_and(|end| end <= self.length) {
            return Ok(());
        }
        let source = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        Err(libxfsr::Error::Io { op, target: "memory".into(), offset, len: len as u64, cause: source })
    }
}

impl Target for Memory {
    fn name(&self) -> &str {
        "memory"
    }
    fn read_at(&self, mut buf: &mut [u8], mut offset: u64) -> libxfsr::Result<()> {
        self.inside("read", offset, buf.len())?;
        let own = self.own.read().expect("no writer panicked");
        while !buf.is_empty() {
            let (page, skip) = (offset / PAGE, (offset % PAGE) as usize);
            let (part, rest) = buf.split_at_mut(buf.len().min(PAGE as usize - skip));
            match own.get(&page).or_else(|| self.base.get(&page)) {
                Some(bytes) => part.copy_from_slice(&bytes[skip..skip + part.len()]),
                None => part.fill(0),
            }
            offset += part.len() as u64;
            buf = rest;
        }
        Ok(())
    }
    fn write_at(&self, mut buf: &[u8], mut offset: u64) -> libxfsr::Result<()> {
        self.inside("write", offset, buf.len())?;
        let mut own = self.own.write().expect("no writer panicked");
        while !buf.is_empty() {
            let (page, skip) = (offset / PAGE, (offset % PAGE) as usize);
            let (part, rest) = buf.split_at(buf.len().min(PAGE as usize - skip));
            let bytes = own.entry(page).or_insert_with(|| {
                self.base.get(&page).cloned().unwrap_or_else(|| vec![0; PAGE as usize].into_boxed_slice())
            });
            bytes[skip..skip + part.len()].copy_from_slice(part);
            offset += part.len() as u64;
            buf = rest;
        }
        Ok(())
    }
    fn flush(&self) -> libxfsr::Result<()> {
        Ok(())
    }
    fn punch(&self, offset: u64, len: u64) -> libxfsr::Result<()> {
        // Pages that nobody wrote are zero already.
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let next = end.min((at / PAGE + 1) * PAGE);
            let page = at / PAGE;
            if self.base.contains_key(&page) || self.own.read().expect("no writer panicked").contains_key(&page) {
                self.write_at(&vec![0; (next - at) as usize], at)?;
            }
            at = next;
        }
        Ok(())
    }
    fn discard(&self, _offset: u64, _len: u64) -> libxfsr::Result<()> {
        Ok(())
    }
    fn len(&self) -> u64 {
        self.length
    }
    fn set_len(&self, _len: u64) -> libxfsr::Result<()> {
        Err(libxfsr::Error::unsupported("an image in memory keeps its length"))
    }
    fn io(&self) -> Io {
        Io { logical: 512, physical: 512, read_only: false, direct_align: 0 }
    }
}
