//! A tour: an image is made and filled from a directory, a file is cloned and overwritten, the machine stops in the middle, the log is recovered, and
//! all is checked; with a small map of the space before and after.

use libxfsr::check;
use libxfsr::control::Control;
use libxfsr::engine::{Filesystem, New, Options, Targets, recover};
use libxfsr::format::ag::{AGF, Agf};
use libxfsr::mkfs::{self, populate, write};
use libxfsr::target::{Recorder, Target, Xfile};
use libxfsr::volume::Volume;
use std::path::Path;
use std::sync::Arc;
use zerocopy::FromBytes;

const SIZE: u64 = 1 << 30;

fn main() -> libxfsr::Result<()> {
    let source = std::env::temp_dir().join(format!("xfsr-tour-{}", std::process::id()));
    let outcome = tour(&source);
    let _ = std::fs::remove_dir_all(&source);
    outcome
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> libxfsr::Error {
    let path = path.to_owned();
    move |e| libxfsr::Error::open(&path, e)
}

/// A few directories and files, to be copied.
fn make_source(at: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(at.join("docs/old"))?;
    for n in 0..200 {
        std::fs::write(at.join(format!("docs/note-{n:03}")), format!("note number {n}\n").repeat(n + 1))?;
    }
    std::fs::write(at.join("large"), vec![b'x'; 48 << 20])?;
    std::os::unix::fs::symlink("docs/note-007", at.join("favourite"))?;
    std::fs::hard_link(at.join("docs/note-001"), at.join("docs/old/first"))
}

fn tour(source: &Path) -> libxfsr::Result<()> {
    make_source(source).map_err(failed(source))?;
    println!("1. A filesystem of 1 GiB in memory, with a copy of a directory in it");
    let image = Arc::new(Xfile::new("tour")?);
    image.set_len(SIZE)?;
    let started = std::time::Instant::now();
    let mut options = mkfs::Options::default();
    options.metadata.rmapbt = Some(true);
    let plan = mkfs::plan(&options, &mkfs::Devices::file(SIZE))?;
    let targets = write::Targets { data: &*image, log: None, rt: None };
    write::write(&plan, &targets, &write::WriteOptions::default(), &Control::none())?;
    let whole = |data: Arc<dyn Target>| Targets { data, log: None, rt: None };
    let tree = populate::Source::Tree(source.to_owned());
    let filled = populate::populate(&whole(image.clone()), &tree, &populate::Options::default(), &Control::none())?;
    let ms = started.elapsed().as_secs_f64() * 1e3;
    println!("   {} names, {} MiB of contents, {ms:.0} ms", filled.names, filled.bytes >> 20);
    map(image.clone())?;

    println!("\n2. It is opened; every write is recorded from now on");
    let recorder = Arc::new(Recorder::new(image)?);
    let (fs, _) = Filesystem::from_targets(&whole(recorder.clone()), &Options::default(), &Control::none())?;
    let root = fs.root();
    let (large, before) = (root.lookup(b"large")?, fs.statfs().free);
    let clone = root.create(b"clone", &New::mode(0o644))?;
    clone.clone_of(&large)?;
    fs.sync()?;
    println!("   a clone of 48 MiB took {} blocks", before - fs.statfs().free);
    let before = fs.statfs().free;
    clone.write_at(&vec![b'y'; 8 << 20], 16 << 20)?;
    println!("   8 MiB of it were overwritten, which took {} blocks", before - fs.statfs().free);
    let mut byte = [0];
    large.read_at(&mut byte, 20 << 20)?;
    println!("   the original still says {:?} there", char::from(byte[0]));
    fs.sync()?;

    println!("\n3. Names are moved about, and the machine stops in the middle");
    let docs = root.lookup(b"docs")?;
    for n in 0..200 {
        let name = format!("note-{n:03}");
        docs.rename(name.as_bytes(), &root, format!("moved-{n:03}").as_bytes(), Default::default())?;
        if n == 120 {
            fs.sync()?;
        }
    }
    drop((docs, clone, large, root));
    let events = recorder.events().len() as u64;
    let crashed = Arc::new(recorder.crash(events, &mut |_| false)?);
    println!("   {events} writes had been made; what was not flushed is lost");

    println!("\n4. The log is recovered");
    let done = recover::recover(&whole(crashed.clone()), &recover::Options::default(), &Control::none())?;
    println!("   {done}");
    let volume = Volume::from_targets(crashed.clone(), None, None, 32 << 20)?;
    print!("{}", check::check(&volume, &Control::none())?);
    drop(volume);
    let (fs, _) = Filesystem::from_targets(&whole(crashed.clone()), &Options::default(), &Control::none())?;
    let moved = |directory: &[u8], prefix: &[u8]| -> libxfsr::Result<usize> {
        let all = fs.root().resolve(directory, libxfsr::engine::Follow::Yes)?.entries(0, usize::MAX)?.entries;
        Ok(all.iter().filter(|e| e.name.starts_with(prefix)).count())
    };
    println!(
        "   {} notes were moved, {} were not, none is in both places",
        moved(b"/", b"moved")?,
        moved(b"docs", b"note")?
    );
    fs.close()?;
    map(crashed)
}

/// How much of each part of the AGs is free: one character for a 64th.
fn map(target: Arc<dyn Target>) -> libxfsr::Result<()> {
    const PARTS: u64 = 64;
    let volume = Volume::from_targets(target, None, None, 8 << 20)?;
    let g = &volume.geometry;
    println!("   free space of each AG: # none, + less than half, . half or more, (blank) all");
    for ag in g.ags() {
        let length = u64::from(g.ag_blocks(ag));
        let mut free = vec![0; PARTS as usize];
        let store =
            libxfsr::space::AgStore::new(&volume, ag, libxfsr::space::AgTree::Bno, libxfsr::cache::OnDamage::Fail)?;
        libxfsr::btree::walk::<libxfsr::btree::kinds::Bno, _>(&store, &Control::none(), &mut |r| {
            let start = u64::from(r.startblock.get());
            for block in start..start + u64::from(r.blockcount.get()) {
                if let Some(part) = free.get_mut((block * PARTS / length) as usize) {
                    *part += 1;
                }
            }
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        let full = length / PARTS;
        let line: String = free
            .iter()
            .map(|n| match *n {
                0 => '#',
                n if n >= full => ' ',
                n if 2 * n >= full => '.',
                _ => '+',
            })
            .collect();
        let agf = volume.ag_header(ag, 1, &AGF, libxfsr::cache::OnDamage::Fail)?;
        let blocks = Agf::read_from_prefix(&agf).map_or(0, |(agf, _)| agf.freeblks.get());
        println!("   AG {ag} [{line}] {blocks} blocks");
    }
    Ok(())
}
