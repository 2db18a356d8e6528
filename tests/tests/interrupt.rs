//! Work inside one large object ends soon after it is asked to, however slow the device is.

use libxfsr::btree::{self, Kind, Ptr, Store, kinds};
use libxfsr::cache::OnDamage;
use libxfsr::check::check;
use libxfsr::control::Control;
use libxfsr::error::{Error, ForkKind, Result};
use libxfsr::format::inode::{Dinode, Format};
use libxfsr::geometry::Geometry;
use libxfsr::inode::fork::{ForkStore, all_extents};
use libxfsr::inode::scan;
use libxfsr::journal::log_state;
use libxfsr::space::{AgStore, AgTree};
use libxfsr::spaceman::{Image, SpaceBackend};
use libxfsr::target::{Io, Target};
use libxfsr::units::{AgBlock, AgNumber, BASIC_BLOCK, FsBlock, Ino};
use libxfsr::volume::Volume;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use xfsr_tests::corpus;
use xfsr_tests::memory::Memory;

/// What a read of one of the object's blocks takes.
const DELAY: Duration = Duration::from_millis(60);
/// So many of the object's blocks are read before the work is asked to end.
const BEGUN: u64 = 4;
/// What the object has at least, so that all of it would take several times as long as may pass after the request.
const BLOCKS: usize = 50;

/// A device of which some blocks are slow, and that asks for the end when it sees that the work is among them.
#[derive(Debug)]
struct Slow {
    memory: Memory,
    slow: BTreeSet<u64>,
    reads: AtomicU64,
    asked: Mutex<Option<Instant>>,
}

impl Target for Slow {
    fn name(&self) -> &str {
        self.memory.name()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if self.slow.range(offset..offset + buf.len() as u64).next().is_some() {
            std::thread::sleep(DELAY);
            if self.reads.fetch_add(1, Ordering::SeqCst) + 1 == BEGUN {
                *self.asked.lock().expect("nobody panicked") = Some(Instant::now());
            }
        }
        self.memory.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.memory.write_at(buf, offset)
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.memory.punch(offset, len)
    }
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.memory.discard(offset, len)
    }
    fn len(&self) -> u64 {
        self.memory.len()
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.memory.set_len(len)
    }
    fn io(&self) -> Io {
        self.memory.io()
    }
}

fn volume(target: impl Target + 'static) -> Volume {
    Volume::from_targets(Arc::new(target), None, None, 8 << 20).expect("a volume")
}

/// Does the work on an image of which these blocks are slow, and has it stopped among them.
fn stops(what: &str, memory: &Memory, blocks: &[u64], work: impl FnOnce(Volume, &Control<'_>) -> Result<()>) {
    assert!(blocks.len() >= BLOCKS, "{what}: {} blocks", blocks.len());
    let slow = Arc::new(Slow {
        memory: memory.clone(),
        slow: blocks.iter().copied().collect(),
        reads: AtomicU64::new(0),
        asked: Mutex::default(),
    });
    let volume = Volume::from_targets(slow.clone(), None, None, 8 << 20).expect("a volume");
    let stop = || slow.asked.lock().expect("nobody panicked").is_some();
    let control = Control { stop: &stop, ..Control::none() };
    let end = work(volume, &control);
    let asked = slow.asked.lock().expect("nobody panicked").expect("the work came to these blocks");
    let (took, reads) = (asked.elapsed(), slow.reads.load(Ordering::SeqCst));
    assert!(matches!(end, Err(Error::Stopped)), "{what}: {end:?}");
    assert!(took < Duration::from_secs(1), "{what}: ended {took:?} after it was asked to");
    assert!(reads < BLOCKS as u64 / 2, "{what}: {reads} of {} blocks were read", blocks.len());
}

fn offset(g: &Geometry, block: FsBlock) -> u64 {
    g.fsblock_to_daddr(block).expect("a block of the volume").bytes()
}

/// The used inode that has most of something, and its bytes.
fn largest(volume: &Volume, size: impl Fn(&Dinode) -> u64) -> (Ino, Vec<u8>) {
    let mut best = (0, Ino(0), Vec::new());
    scan::for_each_used(volume, &Control::none(), &mut |seen| {
        let (ino, bytes) = seen.expect("a sound image");
        let n = size(Dinode::from_bytes(bytes).expect("an inode"));
        if n > best.0 {
            best = (n, ino, bytes.to_vec());
        }
        ControlFlow::Continue(())
    })
    .expect("nobody stops");
    (best.1, best.2)
}

/// The blocks of a tree.
fn blocks_of<K: Kind>(store: &(impl Store + Sync)) -> Vec<Ptr> {
    let mut all = Vec::new();
    btree::check::<K, _>(store, &Control::none(), &mut |p, _| all.push(p), &mut |_| (), &mut |c| panic!("{c}"))
        .expect("nobody stops");
    all
}

#[test]
fn a_check_ends_inside_one_large_object() {
    let Some(devices) = corpus::obtain("rmap-1k") else { return };
    let memory = Memory::load(&devices.data).expect("an image");
    let v = volume(memory.clone());
    let g = &v.geometry;
    let checked = |v: Volume, control: &Control<'_>| check(&v, control).map(drop);

    let (ino, bytes) = largest(&v, |core| if core.is_dir() { core.size.get() } else { 0 });
    let extents = all_extents(&v, ino, &bytes, ForkKind::Data).expect("a sound map");
    let each = extents.iter().flat_map(|e| e.start..e.start + e.count);
    let directory: Vec<u64> = each.map(|b| offset(g, FsBlock(b))).collect();
    stops("a directory", &memory, &directory, checked);

    let many = |core: &Dinode| {
        let tree = core.format(ForkKind::Data) == Some(Format::Btree);
        if tree { core.extents(ForkKind::Data) } else { 0 }
    };
    let (ino, bytes) = largest(&v, many);
    let map = blocks_of::<kinds::Bmap>(&ForkStore::new(&v, ino, &bytes, ForkKind::Data));
    let map: Vec<u64> = map.into_iter().map(|p| offset(g, FsBlock(p.0))).collect();
    stops("an extent map", &memory, &map, checked);
    stops("frag", &memory, &map, |v, control| Image::new(v, "image".into()).frag(control).map(drop));

    let of = |ag| {
        let store = AgStore::new(&v, ag, AgTree::Rmap, OnDamage::Fail).expect("a tree");
        let each = blocks_of::<kinds::Rmap>(&store).into_iter();
        each.map(|p| g.agbno_to_daddr(ag, AgBlock(p.0 as u32)).bytes()).collect::<Vec<u64>>()
    };
    let log = offset(g, g.log_start);
    let log: Vec<u64> = (0..u64::from(g.log_blocks) << g.bb_shift()).map(|n| log + n * BASIC_BLOCK).collect();
    stops("the search for the log's head", &memory, &log, |v, control| log_state(&v, control).map(drop));
    stops("a log", &memory, &log, checked);

    let tree = (0..g.ag_count).map(|ag| of(AgNumber(ag))).max_by_key(Vec::len).expect("an AG");
    stops("an AG's tree", &memory, &tree, checked);
}
