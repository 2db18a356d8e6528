//! One directory with very many names: deep trees, several free index blocks; and how long a name takes.

use crate::model::{self, Form};
use libxfsr::dir::DirMut;
use libxfsr::format::dir::FileType;
use libxfsr::format::inode::Dinode;
use libxfsr::journal::{self, Journal};
use libxfsr::space::Space;
use libxfsr::target::{Access, FileTarget};
use libxfsr::txn::{CommitSink, DirtySink, Scope};
use libxfsr::units::{Ino, Lsn};
use libxfsr::volume::Volume;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use xfsr_tests::changing::{self, assert_clean};
use xfsr_tests::oracle::{MOUNT, Mount, require};

fn name(n: u64) -> Vec<u8> {
    format!("file-{n:07}.{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).into_bytes()
}

struct Open {
    volume: Arc<Volume>,
    scope: Scope,
    space: Arc<Space>,
    journal: Option<Arc<Journal>>,
    dir: Ino,
    target: Ino,
}

impl Open {
    fn new(image: &Path, journaled: bool) -> Open {
        let file = Arc::new(FileTarget::open(image, Access::Write).expect("an image"));
        let volume = Arc::new(Volume::from_targets(file, None, None, 256 << 20).expect("a filesystem"));
        let journal =
            journaled.then(|| Journal::open(volume.clone(), &journal::Options::default()).expect("a clean log"));
        let sink: Arc<dyn CommitSink> = match &journal {
            Some(j) => j.clone(),
            None => Arc::new(DirtySink { lsn: Lsn::new(1, 8) }),
        };
        let space = Space::open(&volume).expect("headers");
        let root = volume.geometry.root_ino;
        let inode = |name: &str| libxfsr::dir::resolve(&volume, root, name.as_bytes()).expect("a name");
        let (dir, target) = (inode("/dir-0"), inode("/target-0"));
        Open { scope: Scope::new(volume.clone(), sink), volume, space, journal, dir, target }
    }

    fn each(&self, what: &str, count: u64, add: bool) {
        let begun = Begun::now();
        let g = &self.volume.geometry;
        for n in 0..count {
            let mut t = self.scope.begin(DirMut::reservation(g)).expect("room in the log");
            t.lock_inode(self.dir.min(self.target));
            let mut d = DirMut::new(&mut t, &self.space, self.dir);
            if add {
                d.add(&name(n), self.target, FileType::Regular).expect("added");
            } else {
                d.remove(&name(n)).expect("removed");
            }
            let core = Dinode::from_bytes_mut(t.inode_mut(self.target).expect("an inode")).expect("a core");
            let links = core.nlink.get();
            core.nlink.set(if add { links + 1 } else { links - 1 });
            t.commit().expect("committed");
        }
        begun.per_name(what, count);
    }

    fn close(self) {
        self.space.settle(&self.scope).expect("counters");
        match &self.journal {
            Some(j) => j.close().expect("closed"),
            None => self.volume.cache.write_back(None).expect("written"),
        }
    }
}

/// When something began, on the clock and of this thread's processor time: others may keep the processors busy.
struct Begun {
    clock: Instant,
    processor: u64,
}

fn processor_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

impl Begun {
    fn now() -> Begun {
        Begun { clock: Instant::now(), processor: processor_time() }
    }

    fn per_name(&self, what: &str, count: u64) {
        let each = self.clock.elapsed().as_nanos() / u128::from(count);
        let processor = (processor_time() - self.processor) / count;
        println!("{what}: {each} ns for each of {count} names, {processor} ns of processor time");
    }
}

#[test]
fn many_names() {
    if require(MOUNT).is_none() {
        return;
    }
    let count = xfsr_tests::knob("XFSR_NAMES", 30_000);
    for journaled in [false, true] {
        let sink = if journaled { "journal" } else { "without log" };
        let directory = tempfile::tempdir().expect("a directory");
        let image = changing::kernel_made(directory.path(), 1024, &["-m", "rmapbt=1"], |root| {
            model::fill(root, &[("dir-0", 0)]);
        });
        let world = Open::new(&image, journaled);
        world.each(&format!("{sink}, add"), count, true);
        let begun = Instant::now();
        let deep = model::form(&world.volume, world.dir);
        world.close();
        println!("closed in {:?}", begun.elapsed());
        assert!(deep >= Form::Node && (count < 300_000 || deep == Form::DeepNode));
        assert_clean("many names", &image);
        let mount = Mount::new(&image, "").expect("a mount");
        assert_eq!(std::fs::read_dir(mount.path().join("dir-0")).expect("a directory").count() as u64, count);
        std::fs::create_dir(mount.path().join("by-the-kernel")).expect("a directory");
        let begun = Begun::now();
        for n in 0..count {
            let new = String::from_utf8(name(n)).expect("text");
            std::fs::hard_link(mount.path().join("target-1"), mount.path().join("by-the-kernel").join(new))
                .expect("a link");
        }
        begun.per_name("the kernel, add", count);
        mount.unmount().expect("an unmount");
        let world = Open::new(&image, journaled);
        world.each(&format!("{sink}, remove"), count, false);
        assert_eq!(model::form(&world.volume, world.dir), Form::Short);
        world.close();
        assert_clean("emptied", &image);
    }
}
