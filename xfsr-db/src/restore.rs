//! Makes an image of a metadump, to be looked at.

use libxfsr::Error;
use libxfsr::control::Control;
use libxfsr::dump::{Dumped, read_dump, restore};
use libxfsr::format::superblock::Superblock;
use libxfsr::target::{Access, FileTarget};
use libxfsr::text::escape;
use libxfsr::units::Device;
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use zerocopy::FromBytes as _;

fn input(dump: &Path) -> Result<BufReader<File>, Error> {
    // It is read twice, and to open a pipe would wait for its other end.
    let kind = std::fs::metadata(dump).map_err(|e| Error::open(dump, e))?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let why = std::io::Error::new(std::io::ErrorKind::InvalidInput, "neither a file nor a block device");
        return Err(Error::open(dump, why));
    }
    Ok(BufReader::with_capacity(1 << 20, File::open(dump).map_err(|e| Error::open(dump, e))?))
}

/// Bytes of the filesystem's data device, by the superblock in the dump.
fn size(dump: &Path, control: &Control<'_>) -> Result<u64, Error> {
    let mut found = None;
    let read = read_dump(&mut input(dump)?, &mut |device, at, bytes| {
        control.check()?;
        if let (Device::Data, 0, Ok((sb, _))) = (device, at.0, Superblock::read_from_prefix(bytes)) {
            found = Some((sb.dblocks.get(), sb.blocksize.get()));
            // Nothing more is needed.
            return Err(Error::Stopped);
        }
        Ok(())
    });
    match (found, read) {
        (Some((blocks, block)), _) => blocks
            .checked_mul(block.into())
            .filter(|size| *size > 0)
            .ok_or_else(|| Error::invalid(format!("the dump's superblock has {blocks} blocks of {block} bytes"))),
        (None, Err(e)) => Err(e),
        (None, Ok(_)) => Err(Error::invalid("the dump has no primary superblock")),
    }
}

/// Restores a dump into a new, sparse file. What exists is not written to; what was begun is taken away when it fails.
pub(crate) fn into_image(dump: &Path, image: &Path, control: &Control<'_>) -> Result<Dumped, Error> {
    let size = size(dump, control)?;
    let file = File::options().write(true).create_new(true).open(image).map_err(|e| Error::open(image, e))?;
    let restored = file.set_len(size).map_err(|e| Error::open(image, e)).and_then(|()| {
        let target = FileTarget::open(image, Access::Write)?;
        restore(&mut input(dump)?, &target, None, None, control)
    });
    if restored.is_err() {
        // The error that is told is the one that matters.
        let _ = std::fs::remove_file(image);
    }
    restored
}

/// What is said at the end.
pub(crate) fn summary(image: &Path, dumped: &Dumped) -> String {
    let name = escape(image.as_os_str().as_encoded_bytes());
    format!("{name}: restored {} blocks of 512 bytes; it holds metadata only\n", dumped.blocks)
}
