//! Which features the options turn on.

use super::layout::refuse;
use super::options::{Devices, Options};
use crate::error::Result;
use crate::format::features::{Features, Features2, Incompat, LogIncompat, RoCompat, Version};

pub(super) fn features(options: &Options, devices: &Devices) -> Result<Features> {
    let (m, rt) = (&options.metadata, devices.rt.is_some());
    let finobt = m.finobt.unwrap_or(true);
    if !finobt && m.inobtcount == Some(true) {
        return refuse("-m inobtcount", 1, "it counts the blocks of finobt, which -m finobt=0 turns off");
    }
    let reflink = m.reflink.unwrap_or(!rt);
    let metadir = m.metadir.unwrap_or(false);
    if rt && reflink && !metadir {
        return refuse("-m reflink", 1, "it goes with a realtime device only with -m metadir=1; give -m reflink=0");
    }
    if rt && m.rmapbt == Some(true) && !metadir {
        return refuse("-m rmapbt", 1, "it goes with a realtime device only with -m metadir=1; give -m rmapbt=0");
    }
    if rt && metadir && options.naming.parent == Some(true) {
        return refuse("-n parent", 1, "this version makes no parent pointers of realtime groups' files; leave it out");
    }
    if !reflink && options.data.cowextsize.is_some_and(|c| c > 0) {
        return refuse("-d cowextsize", options.data.cowextsize.unwrap_or(0), "it needs -m reflink=1");
    }
    // The kernel wants both: what rewrites a realtime file exchanges its blocks.
    let exchange = options.inode.exchange.unwrap_or(metadir);
    if metadir && !exchange {
        return refuse("-i exchange", 0, "-m metadir=1 needs it; leave one of the two out");
    }
    let mut ro = RoCompat::empty();
    ro.set(RoCompat::FINOBT, finobt);
    ro.set(RoCompat::INOBTCNT, m.inobtcount.unwrap_or(finobt));
    ro.set(RoCompat::REFLINK, reflink);
    ro.set(RoCompat::RMAPBT, m.rmapbt.unwrap_or(false));
    let mut incompat = Incompat::FTYPE;
    incompat.set(Incompat::SPINODES, options.inode.sparse.unwrap_or(true));
    incompat.set(Incompat::BIGTIME, m.bigtime.unwrap_or(true));
    incompat.set(Incompat::NREXT64, options.inode.nrext64.unwrap_or(false));
    incompat.set(Incompat::EXCHRANGE, exchange);
    incompat.set(Incompat::METADIR, metadir);
    incompat.set(Incompat::PARENT, options.naming.parent.unwrap_or(false));
    let mut version =
        Version::NLINK | Version::ALIGN | Version::LOGV2 | Version::EXTFLG | Version::DIRV2 | Version::MOREBITS;
    version.set(Version::BORG, options.naming.ascii_ci);
    // Parent pointers are attributes: each inode may have some from the start.
    version.set(Version::ATTR, incompat.contains(Incompat::PARENT));
    Ok(Features {
        version,
        features2: Features2::LAZYSBCOUNT | Features2::ATTR2 | Features2::PROJID32 | Features2::CRC,
        compat: 0,
        ro_compat: ro,
        incompat,
        log_incompat: LogIncompat::empty(),
    })
}
