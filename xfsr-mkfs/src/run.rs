//! From a command line to a filesystem: look at the targets, plan, write.

use crate::PROGRAM;
use crate::args::Args;
use crate::contents::{self, Contents};
use anyhow::{Context, Result, bail};
use libxfsr::Error;
use libxfsr::cli::{Failure, ProgressMode, Reporter, interrupted, note, print, print_json, watch};
use libxfsr::control::{Control, Progress};
use libxfsr::mkfs::probe;
use libxfsr::mkfs::write::{Targets, WriteOptions, write};
use libxfsr::mkfs::{Devices, Plan, Topology, plan};
use libxfsr::target::{Access, FileTarget, Target};
use libxfsr::text::escape;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Does what the arguments say.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(text) = &args.only {
        return Ok(print(text)?);
    }
    let Some(path) = args.device.as_deref() else { bail!("no device is named; --help shows how") };
    let file_size = new_file_size(args, path)?;
    for (option, other) in [("-l logdev", &args.log_device), ("-r rtdev", &args.rt_device)] {
        if let Some(other) = other.as_deref().filter(|o| is_same(o, path)) {
            let name = escape(other.as_os_str().as_encoded_bytes());
            bail!("{option}={name} is not possible: the data section is there; name another device");
        }
    }
    let access = if args.dry_run { Access::Read } else { Access::Write };
    // A file that is to be made does not exist before every option has been found good.
    let open = |p: &Path| FileTarget::open(p, access).map_err(anyhow::Error::from);
    let existing = if path.exists() { Some(open(path)?) } else { None };
    let data_topology = match (file_size, &existing) {
        (Some(size), _) => Topology::plain(size),
        (None, Some(t)) => probe::topology(t),
        (None, None) => bail!("{}: no such file or device; for a new image give -d file,size=NUM", path.display()),
    };
    let log = Section::new("-l", &args.log_device, args.log_file, args.options.log.size, &open)?;
    let rt = Section::new("-r", &args.rt_device, args.rt_file, args.options.realtime.size, &open)?;
    let devices = Devices { data: data_topology, log: log.topology, rt: rt.topology };
    for (target, by) in
        existing.iter().chain(&log.target).chain(&rt.target).filter_map(|t| t.in_use().map(|by| (t.name(), by)))
    {
        note(PROGRAM, &format!("{} is {by}: what is seen may be inconsistent", escape(target.as_bytes())));
    }
    // A log is not asked for: mkfs.xfs does not look at its device's alignment either.
    for (target, topology) in existing.iter().zip([devices.data]).chain(rt.target.iter().zip(devices.rt)) {
        if topology.misaligned {
            warn_misaligned(target, args.force)?;
        }
    }
    // What it is filled with is looked at before anything is written.
    let source = args.contents.as_ref().map(Contents::source).transpose()?;
    let seed = args.contents.as_ref().and_then(|c| c.seed);
    let now = contents::fixed_time()?;
    let mut options = args.options.clone();
    options.metadata.uuid = options.metadata.uuid.or(seed.map(contents::uuid));
    let plan = plan(&options, &devices)?;
    for warning in &plan.warnings {
        note(PROGRAM, warning);
    }
    if !args.dry_run {
        if !args.force {
            for target in existing.iter().chain(&log.target).chain(&rt.target) {
                refuse_used(target)?;
            }
        }
        let made = match (existing, file_size) {
            (Some(t), Some(size)) => {
                if t.len() != size {
                    t.set_len(size)?;
                }
                t
            }
            (Some(t), None) => t,
            (None, size) => FileTarget::create(path, size.unwrap_or(0))?,
        };
        let shared = |t: FileTarget| -> Arc<dyn Target> { Arc::new(t) };
        let (made, log, rt) = (shared(made), log.made()?.map(shared), rt.made()?.map(shared));
        let targets = Targets { data: &*made, log: log.as_deref(), rt: rt.as_deref() };
        let mut options = WriteOptions { discard: !args.no_discard, ..WriteOptions::default() };
        if let Some(time) = now {
            let since = Duration::from_secs(u64::try_from(time.seconds).context("SOURCE_DATE_EPOCH is before 1970")?);
            options.now = UNIX_EPOCH + since;
        }
        put(&plan, &targets, &options, args.progress)?;
        if let Some(source) = &source {
            let targets = libxfsr::engine::Targets { data: made, log, rt };
            contents::fill(&targets, source, seed, now, args.progress)?;
        }
    }
    if args.quiet && !args.dry_run {
        return Ok(());
    }
    let name = |p: &Option<std::path::PathBuf>| p.as_ref().map(|p| p.display().to_string());
    let report =
        plan.report(&path.display().to_string(), name(&args.log_device).as_deref(), name(&args.rt_device).as_deref());
    if args.json {
        print_json(&report).map_err(|e| libxfsr::Error::open("standard output", e))?;
    } else {
        print(&report.render())?;
    }
    Ok(())
}

/// Writes the filesystem, and says what is left where that does not succeed.
fn put(plan: &Plan, targets: &Targets<'_>, options: &WriteOptions, form: ProgressMode) -> Result<()> {
    if let Err(e) = watch() {
        note(PROGRAM, &format!("Ctrl-C will end it at once: {e}"));
    }
    let reporter = Reporter::new(form);
    let tell = |p: &Progress| reporter.tell(p);
    let control = Control { deadline: None, stop: &interrupted, progress: Some(&tell), phase: None };
    let done = write(plan, targets, options, &control);
    reporter.clear();
    let name = escape(targets.data.name().as_bytes());
    match done {
        Err(e @ Error::Stopped) => Err(anyhow::Error::from(e)
            .context(format!("{name} holds no filesystem now, and what it held before is lost; make it again"))),
        Err(e @ Error::Io { .. }) => Err(anyhow::Error::from(e)
            .context(format!("the filesystem is not complete, and what {name} held before may be lost"))),
        // What the plan does not allow was refused before the first write.
        done => Ok(done?),
    }
}

/// An external log or a realtime section: its device, or the file that is to be made for it.
#[derive(Default)]
struct Section<'a> {
    target: Option<FileTarget>,
    topology: Option<Topology>,
    new: Option<(&'a Path, u64)>,
}

impl<'a> Section<'a> {
    fn new(
        option: &str,
        path: &'a Option<PathBuf>,
        file: bool,
        size: Option<u64>,
        open: &dyn Fn(&Path) -> Result<FileTarget>,
    ) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        if file && !path.exists() {
            let size = size.with_context(|| format!("{option} file=1 is not possible without {option} size"))?;
            return Ok(Self { target: None, topology: Some(Topology::plain(size)), new: Some((path, size)) });
        }
        if file && !path.is_file() {
            let name = escape(path.as_os_str().as_encoded_bytes());
            bail!("{option} file=1 is not possible: {name} is not a regular file");
        }
        let target = open(path)?;
        Ok(Self { topology: Some(probe::topology(&target)), target: Some(target), new: None })
    }

    /// The target, made where it is new.
    fn made(self) -> Result<Option<FileTarget>> {
        Ok(match self.new {
            Some((path, size)) => Some(FileTarget::create(path, size)?),
            None => self.target,
        })
    }
}

/// The size that an image file is to have, where `-d file` asks for one.
fn new_file_size(args: &Args, path: &Path) -> Result<Option<u64>> {
    if !args.file {
        return Ok(None);
    }
    if path.exists() && !path.is_file() {
        bail!("-d file=1 is not possible: {} is not a regular file", path.display());
    }
    let size = args.options.data.size.context("-d file=1 is not possible without -d size")?;
    Ok(Some(size))
}

/// Whether two paths lead to one file or device.
fn is_same(a: &Path, b: &Path) -> bool {
    let identity = |p: &Path| {
        let meta = std::fs::metadata(p).ok()?;
        Some(if meta.file_type().is_block_device() { (0, meta.rdev()) } else { (meta.dev() + 1, meta.ino()) })
    };
    identity(a).is_some_and(|a| identity(b) == Some(a))
}

fn warn_misaligned(target: &FileTarget, force: bool) -> Result<()> {
    let name = escape(target.name().as_bytes());
    let what = format!(
        "{name} is misaligned: its first byte is not where a physical sector of {} bytes begins (alignment offset {})",
        target.io().physical,
        target.alignment_offset()
    );
    if !force {
        let message = format!("{what}; use -f for a filesystem with sectors of {} bytes there", target.io().logical);
        return Err(Failure::new("misaligned", message).into());
    }
    note(PROGRAM, &format!("{what}, so that writes may be slow"));
    Ok(())
}

fn refuse_used(target: &FileTarget) -> Result<()> {
    match probe::signature(target)? {
        Some(found) => {
            let name = escape(target.name().as_bytes());
            Err(Failure::new("occupied", format!("{name} appears to contain {found}; use -f to overwrite it")).into())
        }
        None => Ok(()),
    }
}
