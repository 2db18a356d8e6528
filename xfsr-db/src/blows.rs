//! Every command on damaged images: an answer or a sentence, never a panic, never without end.

use crate::out::Out;
use crate::session::Session;
use libxfsr::cli::ProgressMode;
use libxfsr::target::{Overlay, Target, Xfile};
use libxfsr::volume::Volume;
use std::cell::RefCell;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// Commands that touch every part of the program.
const COMMANDS: &[&str] = &[
    "sb 0",
    "print",
    "crc",
    "addr rootino",
    "print",
    "info",
    "version",
    "agf 0",
    "print",
    "addr bnoroot",
    "print",
    "btdump",
    "btdump -i",
    "addr ptrs[1]",
    "print",
    "agf 1",
    "addr cntroot",
    "print",
    "agf 0",
    "addr rmaproot",
    "print",
    "btdump -i",
    "agf 0",
    "addr refcntroot",
    "print",
    "agi 0",
    "print",
    "addr root",
    "print",
    "addr recs[1].startino",
    "print",
    "agi 0",
    "addr free_root",
    "print",
    "agfl 0",
    "print bno[0]",
    "addr bno[0]",
    "print",
    "type inode",
    "print",
    "type dir3",
    "print",
    "type attr3",
    "print",
    "type bmapbtd",
    "print",
    "type symlink",
    "print",
    "type dqblk",
    "print",
    "type rtbitmap",
    "print",
    "push inode 128",
    "stack",
    "print",
    "ls",
    "bmap",
    "stat",
    "dblock 0",
    "print",
    "dblock 8388608",
    "print",
    "btdump -i",
    "ablock 0",
    "print",
    "pop",
    "ring",
    "back",
    "forward",
    "ls /",
    "ls /dirs",
    "path /dirs",
    "print",
    "stat",
    "path /attrs",
    "path multi",
    "print",
    "ablock 0",
    "print",
    "cat /files/small",
    "ncheck -i 131",
    "freesp -s -d",
    "frag",
    "blockget -n",
    "blockuse -n -c 3",
    "fsblock 3",
    "blockuse -c 5",
    "dquot -u 0",
    "logprint -s 130000",
    "logprint -tbiqo",
    "logres",
    "logres -k",
    "timelimit --pretty",
    "convert ino 131 fsblock",
    "hash name",
    "inode 0xffffffffffff",
    "daddr 0",
    "fsblock 77777",
    "print",
    "sb 7",
];

/// A small generator, so that each run gives the same blows.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

#[derive(Clone, Default)]
struct Text(Rc<RefCell<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut text = self.0.borrow_mut();
        // What a damaged image makes a command print is not kept without bound.
        if text.len() < 1 << 16 {
            text.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs all commands, and checks that each failure is told in words.
fn run(target: Arc<dyn Target>) {
    let volume = match Volume::from_targets(target, None, None, 1 << 20) {
        Ok(v) => v,
        Err(e) => return assert!(!e.to_string().is_empty()),
    };
    let out = Out::new("xfsr-db", Box::new(Text::default()), Box::new(Text::default()));
    let mut session = Session::new(volume, PathBuf::from("image"), out, ProgressMode::None);
    for c in COMMANDS {
        if let Err(e) = session.run(c.as_bytes()) {
            assert!(!e.trim().is_empty(), "{c} fails without a word");
        }
    }
}

/// A corpus image, and where its metadata lies that the commands read.
fn image() -> Option<(Arc<dyn Target>, Vec<u64>)> {
    let devices = xfsr_tests::corpus::obtain("default")?;
    let file = libxfsr::target::FileTarget::open(&devices.data, libxfsr::target::Access::Read).expect("the image");
    let volume = Volume::open(&libxfsr::volume::Devices::data(&devices.data)).expect("a volume");
    let g = &volume.geometry;
    let mut places: Vec<u64> =
        g.ags().flat_map(|ag| (0..4).map(move |n| (ag, n))).map(|(ag, n)| g.header_daddr(ag, n).bytes()).collect();
    // The trees, the first inodes and the first directories lie at the beginning of the first AG.
    places.extend((1..48).map(|b| b << g.block_log));
    Some((Arc::new(file), places))
}

#[test]
fn blows_of_all_kinds_are_answered_in_words() {
    let Some((file, places)) = image() else { return };
    let mut random = Random(0x5eed_0001_2345_6789);
    for _ in 0..200 {
        let overlay = Overlay::new(file.clone()).expect("memory");
        for _ in 0..=random.below(4) {
            let place = places.get(random.below(places.len() as u64) as usize).copied().unwrap_or(0);
            let mut block = vec![0; 4096];
            let length = if place < 4096 || random.below(2) == 0 { 512 } else { 4096 };
            let block = block.get_mut(..length).expect("a block");
            overlay.read_at(block, place).expect("bytes");
            let n = block.len() as u64;
            match random.below(4) {
                // Bits, a number made extreme, noise, nothing.
                0 => (0..=random.below(8)).for_each(|_| block[random.below(n) as usize] ^= 1 << random.below(8)),
                1 => {
                    let at = random.below(n / 4) as usize * 4;
                    let value = [0, u32::MAX, 1 << 31, random.next() as u32][random.below(4) as usize];
                    block[at..at + 4].copy_from_slice(&value.to_be_bytes());
                }
                2 => block.iter_mut().skip(16).for_each(|b| *b = random.next() as u8),
                _ => block.fill(0),
            }
            // Half of them with a right checksum, so that the contents are looked at.
            if random.below(2) == 0 {
                let at = [4, 12, 32, 52, 64, 100, 216, 224, 312][random.below(9) as usize];
                libxfsr::format::seal_checksum(block, at);
            }
            overlay.write_at(block, place).expect("a write");
        }
        run(Arc::new(overlay));
    }
}

fn zeroes(length: u64) -> Xfile {
    let target = Xfile::new("image").expect("memory");
    if length > 0 {
        target.write_at(&[0], length - 1).expect("a write");
    }
    target
}

#[test]
fn truncated_zeroed_and_random_images_are_answered_in_words() {
    let Some((file, _)) = image() else { return };
    for length in [0, 1, 511, 512, 4096, 40_960, 70_000, 1 << 20, 60 << 20] {
        let part = zeroes(length);
        let mut bytes = vec![0; length.min(1 << 20) as usize];
        file.read_at(&mut bytes, 0).expect("bytes");
        part.write_at(&bytes, 0).expect("a write");
        run(Arc::new(part));
    }
    run(Arc::new(zeroes(1 << 24)));
    let mut random = Random(77);
    let noise: Vec<u8> = (0..1 << 20).map(|_| random.next() as u8).collect();
    let target = zeroes(1 << 20);
    target.write_at(&noise, 0).expect("a write");
    run(Arc::new(target));
}
