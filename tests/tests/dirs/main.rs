//! Directories are changed in images that the kernel wrote, against a model; xfs_repair, the check and the kernel judge the end.

mod damaged;
mod many;
mod model;

use libxfsr::attr::change as attrs;
use libxfsr::error::ForkKind;
use libxfsr::format::attr::AttrFlags;
use libxfsr::inode::ForkMut;
use model::{Form, World};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use xfsr_tests::changing::{self, Commits, assert_clean};
use xfsr_tests::oracle::{Guest, GuestJob, MOUNT, Mount, mkfs_xfs, require};

const FORMS: [Form; 4] = [Form::Short, Form::Block, Form::Leaf, Form::Node];
/// Directories that the kernel makes in every form, and one without names.
const MADE: &[(&str, usize)] = &[("dir-0", 0), ("dir-1", 3), ("dir-2", 30), ("dir-3", 250), ("dir-4", 2500)];

/// Directories are changed at random: one grows by so many names from nothing through all forms and goes back, the others are those of the
/// kernel.
fn random(mkfs: &[&str], seed: u64, most: usize, long: f64, forms: &[Form]) {
    if require(MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = changing::kernel_made(directory.path(), 320, mkfs, |root| model::fill(root, MADE));
    let mut world = World::open(&image, Commits::Gathered, seed);
    world.compare();
    for n in 0..most {
        world.operation(0, 88, long);
        if n % 4 == 0 {
            let other = world.rng.random_range(1..MADE.len());
            world.operation(other, 50, 0.1);
        }
        if n % (most / 8) == 0 {
            world.compare();
        }
    }
    world.compare();
    for n in 0..MADE.len() {
        let left = world.rng.random_range(0..4) * n;
        world.shrink(n, left);
        world.compare();
    }
    assert!(forms.iter().all(|f| world.forms.contains(f)), "{:?}", world.forms);
    for _ in 0..most / 8 {
        let n = world.rng.random_range(0..MADE.len());
        world.operation(n, 80, long);
    }
    world.end(&image);
    // What the kernel has added to and removed from is changed once more.
    let mut world = World::open(&image, Commits::Gathered, seed + 100);
    for n in 0..MADE.len() {
        (0..30).for_each(|_| world.operation(n, 50, 0.1));
        world.shrink(n, n);
    }
    world.end(&image);
}

#[test]
fn random_names() {
    random(&[], 1, 3000, 0.1, &FORMS);
}

#[test]
fn random_names_in_small_blocks() {
    random(&["-b", "size=1024", "-m", "rmapbt=1"], 2, 4000, 0.3, &FORMS);
}

#[test]
fn random_names_in_blocks_of_several() {
    random(&["-b", "size=1024", "-n", "size=8192"], 3, 3000, 0.2, &FORMS);
}

#[test]
fn random_names_in_large_blocks() {
    random(&["-b", "size=65536"], 4, 4000, 0.3, &FORMS[..3]);
}

/// Crashes at sampled writes: the kernel recovers what some operation left.
fn crashed(mkfs: &[&str], seed: u64, commits: Commits) {
    if require(MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    // At the edges of the forms, so that these change often.
    let made = [("dir-0", 0), ("dir-1", 12), ("dir-2", 55), ("dir-3", 480)];
    let image = changing::kernel_made(directory.path(), 320, mkfs, |root| model::fill(root, &made));
    let mut world = World::open(&image, commits, seed);
    let mut states = vec![world.state()];
    let mut durable = vec![(0, 0)];
    for i in 0..260 {
        let n = world.rng.random_range(0..made.len());
        world.operation(n, if i / 60 % 2 == 0 { 85 } else { 15 }, 0.3);
        states.push(world.state());
        if commits == Commits::Forced || i % 20 == 0 {
            world.changing.journal.sync().expect("durable");
            durable.push((world.changing.now(), states.len() - 1));
        }
    }
    let end = world.changing.now();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let crash = directory.path().join("crash");
    for n in 0..xfsr_tests::knob("XFSR_CRASHES", 6) {
        let time = rng.random_range(0..=end);
        world.changing.crash_to(time, n, &crash);
        let mount = Mount::new(&crash, "").expect("the kernel recovers it");
        let found = world.mounted(mount.path());
        mount.unmount().expect("an unmount");
        assert_clean(&format!("crash {n} at {time}"), &crash);
        let least = durable.iter().filter(|(t, _)| *t <= time).map(|(_, s)| *s).max().unwrap_or(0);
        assert!(states[least..].contains(&found), "crash {n} at {time} of {end}: no state from {least} on");
    }
}

#[test]
fn the_kernel_recovers_crashes_inside_of_chains() {
    crashed(&["-m", "rmapbt=1"], 6, Commits::Forced);
}

#[test]
fn the_kernel_recovers_crashes_of_gathered_commits() {
    crashed(&["-b", "size=1024", "-n", "size=4096"], 7, Commits::Gathered);
}

/// Names that fill the inode make room for an attribute; the kernel sees both.
#[test]
fn names_make_room_for_attributes() {
    if require(MOUNT).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = changing::kernel_made(directory.path(), 320, &[], |root| {
        model::fill(root, &[("dir-0", 0), ("dir-1", 0)]);
    });
    let mut world = World::open(&image, Commits::Gathered, 31);
    // One is filled to its last bytes, the other leaves room for the fork. Linux moves one that does not into a block too.
    for (n, count) in [(0, 16), (1, 5)] {
        // Some kernels make an attribute fork with the inode.
        let (ino, space) = (world.dirs[n].1, world.changing.space.clone());
        let mut t = world.begin(ino);
        let mut fork = ForkMut::new(&mut t, &space, ino, ForkKind::Attr);
        if fork.core().expect("a core").has_attr_fork() {
            fork.remove_attr_fork().expect("an empty one");
        }
        t.commit().expect("committed");
        for i in 0..count {
            world.add(n, format!("name-{i:07}").as_bytes());
        }
        assert_eq!(model::form(&world.changing.volume, world.dirs[n].1), Form::Short);
    }
    let value: Vec<u8> = (0..200).collect();
    for n in 0..2 {
        let ino = world.dirs[n].1;
        let g = &world.changing.volume.geometry;
        let mut t = world.changing.scope.begin(attrs::reservation(g, 200)).expect("room in the log");
        let key = (AttrFlags::empty(), &b"large"[..]);
        attrs::set(&mut t, &world.changing.space, ino, key, &value, attrs::How::Create).expect("an attribute");
        t.commit().expect("committed");
    }
    let forms = [0, 1].map(|n| model::form(&world.changing.volume, world.dirs[n].1));
    assert_eq!(forms, [Form::Block, Form::Short]);
    world.compare();
    let (a, b) = (world.dirs[0].0.clone(), world.dirs[1].0.clone());
    world.end(&image);
    let mount = Mount::new(&image, "ro").expect("a mount");
    for name in [a, b] {
        let mut found = [0; 300];
        let path = mount.path().join(name);
        let n = rustix::fs::getxattr(&path, "user.large", &mut found[..]).expect("an attribute");
        assert_eq!(found[..n], value);
    }
}

/// Names without regard to case, which only the guest kernel mounts: it makes some, finds ours, and removes all.
#[test]
fn random_names_without_regard_to_case() {
    if require(&[MOUNT, &["guest"]].concat()).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = directory.path().join("image");
    std::fs::File::create(&image).and_then(|f| f.set_len(320 << 20)).expect("a file");
    mkfs_xfs(&["-n", "version=ci"], &image).expect("mkfs.xfs");
    let guest = |command: &str| {
        let job = GuestJob { disks: vec![&image], ..Default::default() };
        let run = Guest::find().expect("a guest").run(&job, command).expect("it runs");
        assert!(run.clean(), "{}", run.output);
        run.output
    };
    guest(
        "mount /dev/vda /mnt && cd /mnt && echo 0 > target-0 && echo 1 > target-1 && ln -s nowhere target-2 && mkdir dir-0 dir-1 && \
         for i in $(seq 200); do ln target-0 dir-1/Name-$i || exit 1; done; cd / && umount /mnt",
    );
    let mut world = World::open(&image, Commits::Gathered, 5);
    assert_eq!(world.dirs[1].2.len(), 200);
    for n in 0..2500 {
        world.operation(0, 85, 0.1);
        if n % 5 == 0 {
            world.operation(1, 40, 0.1);
        }
    }
    world.compare();
    world.shrink(0, 900);
    world.compare();
    assert!(world.forms.contains(&Form::Node));
    let World { changing, dirs, .. } = world;
    changing.finish();
    assert_clean("changed", &image);
    let counts = guest(
        "mount /dev/vda /mnt && for d in 0 1; do find /mnt/dir-$d -mindepth 1 | wc -l; done && rm -r /mnt/dir-0 /mnt/dir-1 && umount /mnt",
    );
    let counts: Vec<usize> = counts.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    assert_eq!(counts, [dirs[0].2.len(), dirs[1].2.len()]);
    assert_clean("emptied by the kernel", &image);
}
