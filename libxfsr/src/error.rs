//! What can go wrong: a small, stable [`Error`], and [`Corruption`], which names one broken rule in one place.

use crate::units::{AgBlock, AgNumber, Daddr, Device, FileBlock, Ino};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;

/// Result of the library's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;
/// Result of a verifier.
pub type Verdict = std::result::Result<(), Box<Corruption>>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an I/O.
    #[error("{op} of {len} bytes at byte {offset} of {target} failed: {cause}")]
    Io {
        /// `read`, `write`, `flush`, ...
        op: &'static str,
        /// The target's name.
        target: String,
        /// Byte offset.
        offset: u64,
        /// Bytes asked for.
        len: u64,
        /// The cause; the message names it, so it is no `source()` to be printed again.
        cause: std::io::Error,
    },
    /// Opening or inspecting a path failed.
    #[error("{path}: {cause}")]
    Open {
        /// The path.
        path: String,
        /// The cause; the message names it, so it is no `source()` to be printed again.
        cause: std::io::Error,
    },
    /// Metadata breaks a rule of the format.
    #[error(transparent)]
    Corrupt(#[from] Box<Corruption>),
    /// The target has no superblock, first or copy, that could be used.
    #[error(
        "{target} holds no XFS filesystem that can be opened: {primary}; no usable copy of the superblock was found either"
    )]
    NoFilesystem {
        /// The target's name.
        target: String,
        /// What is wrong with the primary superblock.
        primary: Box<Corruption>,
    },
    /// The filesystem or the system lacks what is needed.
    #[error("{0}")]
    Unsupported(Cow<'static, str>),
    /// The caller's request cannot be met; the sentence says which value and what is allowed.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// What was asked for lies on a device of the filesystem that was not given.
    #[error("the {} is on a device of its own, which was not given: name it", section(*device))]
    MissingDevice {
        /// The device.
        device: Device,
    },
    /// Somebody else uses the target.
    #[error("{target} is in use: {why}")]
    Busy {
        /// The target's name.
        target: String,
        /// By whom, and what to do.
        why: String,
    },
    /// Nothing there under that name or number.
    #[error("not found: {0}")]
    NotFound(String),
    /// Not enough free blocks, or none as they are wanted. Nothing was changed.
    #[error("no space left: {0}")]
    NoSpace(String),
    /// A user, group or project has as much as its quota allows. Nothing was changed.
    #[error("quota exceeded: {0}")]
    QuotaExceeded(String),
    /// The name is taken.
    #[error("{0} exists already")]
    Exists(String),
    /// A directory is needed there.
    #[error("{0} is not a directory")]
    NotDirectory(String),
    /// A directory cannot be used so.
    #[error("{0} is a directory")]
    IsDirectory(String),
    /// A directory that still has entries.
    #[error("{0} is not empty")]
    NotEmpty(String),
    /// Longer than the format's names may be.
    #[error("the name {0} is too long: 255 bytes are allowed")]
    NameTooLong(String),
    /// A counter of the format is at its limit: links to an inode.
    #[error("{0} has as many links as an inode may have")]
    TooManyLinks(String),
    /// What the filesystem's own flags forbid: immutable and append-only files, another project's tree.
    #[error("{0}")]
    NotPermitted(Cow<'static, str>),
    /// The filesystem was opened to be read only.
    #[error("the filesystem is open for reading only")]
    ReadOnly,
    /// The caller asked to stop, or the time budget ran out.
    #[error("stopped before the end")]
    Stopped,
}

fn section(device: Device) -> &'static str {
    match device {
        Device::Data => "data section",
        Device::Log => "log",
        Device::Realtime => "realtime section",
    }
}

impl Error {
    /// An [`Error::Unsupported`] from a sentence.
    pub fn unsupported(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Unsupported(what.into())
    }
    /// An [`Error::Invalid`] from a sentence.
    pub fn invalid(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(what.into())
    }
    /// An [`Error::NotPermitted`] from a sentence.
    pub fn not_permitted(what: impl Into<Cow<'static, str>>) -> Self {
        Self::NotPermitted(what.into())
    }
    /// The kind that the standard library has for it.
    pub fn kind(&self) -> std::io::ErrorKind {
        use std::io::ErrorKind;
        match self {
            Self::Io { cause, .. } | Self::Open { cause, .. } => cause.kind(),
            Self::Corrupt(_) | Self::NoFilesystem { .. } => ErrorKind::InvalidData,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Invalid(_) | Self::MissingDevice { .. } => ErrorKind::InvalidInput,
            Self::Busy { .. } => ErrorKind::ResourceBusy,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::NoSpace(_) => ErrorKind::StorageFull,
            Self::QuotaExceeded(_) => ErrorKind::QuotaExceeded,
            Self::Exists(_) => ErrorKind::AlreadyExists,
            Self::NotDirectory(_) => ErrorKind::NotADirectory,
            Self::IsDirectory(_) => ErrorKind::IsADirectory,
            Self::NotEmpty(_) => ErrorKind::DirectoryNotEmpty,
            Self::NameTooLong(_) => ErrorKind::InvalidFilename,
            Self::TooManyLinks(_) => ErrorKind::TooManyLinks,
            Self::NotPermitted(_) => ErrorKind::PermissionDenied,
            Self::ReadOnly => ErrorKind::ReadOnlyFilesystem,
            Self::Stopped => ErrorKind::Interrupted,
        }
    }
    /// How bad it is for a check that could not read something because of this: a device that fails says nothing of the
    /// filesystem, but one that ends too early, or a number that leads nowhere, does.
    pub(crate) fn severity(&self) -> Severity {
        match self {
            Self::Io { cause, .. } if cause.kind() != std::io::ErrorKind::UnexpectedEof => Severity::Incomplete,
            Self::Open { .. } | Self::Unsupported(_) | Self::MissingDevice { .. } => Severity::Incomplete,
            _ => Severity::Corrupt,
        }
    }
    /// An [`Error::Open`] for `path`.
    pub fn open(path: impl AsRef<std::path::Path>, source: impl Into<std::io::Error>) -> Self {
        Self::Open { path: path.as_ref().display().to_string(), cause: source.into() }
    }
}

/// How bad a finding is, as the kernel's scrub distinguishes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Severity {
    /// Legal, but an administrator should look at it.
    Warning,
    /// Legal, but could be better.
    Preen,
    /// The device did not give the bytes: whether they are right is unknown.
    Incomplete,
    /// Two structures disagree.
    CrossReference,
    /// The structure itself breaks a rule.
    Corrupt,
}

impl Severity {
    /// All, the least first.
    pub const ALL: [Self; 5] = [Self::Warning, Self::Preen, Self::Incomplete, Self::CrossReference, Self::Corrupt];
}

/// The rule that is broken. Together with structure and field it makes the stable code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Rule {
    /// The magic number is another one.
    Magic,
    /// The checksum does not match the bytes.
    Crc,
    /// The block belongs to another filesystem.
    Uuid,
    /// The block says that it lives elsewhere.
    Address,
    /// The block says that it belongs to something else.
    Owner,
    /// The block's LSN lies ahead of the log.
    Lsn,
    /// A number is outside its range.
    Range,
    /// A flag or type that is not allowed here.
    Flags,
    /// Records are not in order.
    Order,
    /// Records overlap.
    Overlap,
    /// Two records could be one.
    Unmerged,
    /// Two places that must agree do not.
    Mismatch,
    /// Something that must exist does not.
    Missing,
    /// Something exists that must not.
    Extra,
    /// A block has more than one owner.
    DoublyOwned,
    /// A block has no owner.
    Unowned,
    /// A pointer leads back, or to itself.
    Loop,
    /// The bytes cannot be read.
    Unreadable,
    /// A name is not allowed.
    Name,
    /// A count is wrong.
    Count,
    /// The structure is shorter than its contents claim.
    Truncated,
    /// Nothing leads to it.
    Unreachable,
    /// Something that must be unique occurs twice.
    Duplicate,
}

impl Rule {
    /// Whether a block that breaks this rule is something else than was looked for, so that its contents say nothing.
    pub fn is_foreign(self) -> bool {
        matches!(self, Self::Magic | Self::Uuid | Self::Truncated | Self::Unreadable)
    }
    /// The rule's part of the stable code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Magic => "magic",
            Self::Crc => "crc",
            Self::Uuid => "uuid",
            Self::Address => "address",
            Self::Owner => "owner",
            Self::Lsn => "lsn",
            Self::Range => "range",
            Self::Flags => "flags",
            Self::Order => "order",
            Self::Overlap => "overlap",
            Self::Unmerged => "unmerged",
            Self::Mismatch => "mismatch",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::DoublyOwned => "doubly-owned",
            Self::Unowned => "unowned",
            Self::Loop => "loop",
            Self::Unreadable => "unreadable",
            Self::Name => "name",
            Self::Count => "count",
            Self::Truncated => "truncated",
            Self::Unreachable => "unreachable",
            Self::Duplicate => "duplicate",
        }
    }
}

/// Which fork of an inode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForkKind {
    /// File contents, directory entries, link target.
    Data,
    /// Extended attributes.
    Attr,
}

/// Where something is. Every part is optional; as many are filled in as are known.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Location {
    /// Allocation group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ag: Option<AgNumber>,
    /// Block in that group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agbno: Option<AgBlock>,
    /// Disk address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daddr: Option<Daddr>,
    /// Inode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ino: Option<Ino>,
    /// Fork of that inode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fork: Option<ForkKind>,
    /// Logical block in that fork.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<FileBlock>,
    /// A path to the inode, where one is known. Raw bytes from disk: [`crate::text::escape`] before printing, as this type's
    /// display and its JSON do.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "escaped")]
    pub path: Option<Vec<u8>>,
}

fn escaped<S: serde::Serializer>(path: &Option<Vec<u8>>, s: S) -> std::result::Result<S::Ok, S::Error> {
    s.serialize_some(&path.as_deref().map(crate::text::escape))
}

impl Location {
    /// Takes from `other` what is not known here.
    pub(crate) fn complete(&mut self, other: Self) {
        self.ag = self.ag.or(other.ag);
        self.agbno = self.agbno.or(other.agbno);
        self.daddr = self.daddr.or(other.daddr);
        self.ino = self.ino.or(other.ino);
        self.fork = self.fork.or(other.fork);
        self.offset = self.offset.or(other.offset);
        self.path = self.path.take().or(other.path);
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sep = "";
        let mut part = |f: &mut fmt::Formatter<'_>, name: &str, v: Option<u64>| -> fmt::Result {
            if let Some(v) = v {
                write!(f, "{sep}{name} {v}")?;
                sep = ", ";
            }
            Ok(())
        };
        part(f, "ag", self.ag.map(|v| u64::from(v.0)))?;
        part(f, "agbno", self.agbno.map(|v| u64::from(v.0)))?;
        part(f, "daddr", self.daddr.map(|v| v.0))?;
        part(f, "inode", self.ino.map(|v| v.0))?;
        if let Some(fork) = self.fork {
            write!(f, " {}", if fork == ForkKind::Data { "data fork" } else { "attr fork" })?;
        }
        part(f, "file block", self.offset.map(|v| v.0))?;
        if let Some(p) = &self.path {
            write!(f, "{sep}{}", crate::text::escape(p))?;
        }
        Ok(())
    }
}

/// One broken rule: what, where, which field, what was found and what is allowed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Corruption {
    /// How bad.
    pub severity: Severity,
    /// The structure, by its scrub or xfs_db name: `agf`, `bnobt`, `inode`, `directory`...
    pub structure: &'static str,
    /// The field, by its xfs_db name, or the part of the structure.
    pub field: &'static str,
    /// The rule.
    pub rule: Rule,
    /// The place.
    pub at: Location,
    /// What was found.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub found: String,
    /// What is allowed there.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expected: String,
}

impl Corruption {
    /// A corruption of `field` in `structure`.
    pub fn new(structure: &'static str, field: &'static str, rule: Rule) -> Box<Self> {
        Box::new(Self {
            severity: Severity::Corrupt,
            structure,
            field,
            rule,
            at: Location::default(),
            found: String::new(),
            expected: String::new(),
        })
    }
    /// The stable code, `structure.field.rule`.
    pub fn code(&self) -> String {
        format!("{}.{}.{}", self.structure, self.field, self.rule.as_str())
    }
    /// Sets what was found.
    #[must_use]
    pub fn found(mut self: Box<Self>, v: impl fmt::Display) -> Box<Self> {
        self.found = v.to_string();
        self
    }
    /// Sets what is allowed.
    #[must_use]
    pub fn expected(mut self: Box<Self>, v: impl fmt::Display) -> Box<Self> {
        self.expected = v.to_string();
        self
    }
    /// Sets the severity.
    #[must_use]
    pub fn severity(mut self: Box<Self>, s: Severity) -> Box<Self> {
        self.severity = s;
        self
    }
    /// Sets AG and block.
    #[must_use]
    pub fn in_ag(mut self: Box<Self>, ag: AgNumber, agbno: Option<AgBlock>) -> Box<Self> {
        self.at.ag = Some(ag);
        self.at.agbno = agbno.or(self.at.agbno);
        self
    }
    /// Sets the disk address.
    #[must_use]
    pub fn at_daddr(mut self: Box<Self>, daddr: Daddr) -> Box<Self> {
        self.at.daddr = Some(daddr);
        self
    }
    /// Sets the inode.
    #[must_use]
    pub fn in_inode(mut self: Box<Self>, ino: Ino) -> Box<Self> {
        self.at.ino = Some(ino);
        self
    }
    /// Sets fork and file block.
    #[must_use]
    pub fn in_fork(mut self: Box<Self>, fork: ForkKind, offset: Option<FileBlock>) -> Box<Self> {
        self.at.fork = Some(fork);
        self.at.offset = offset.or(self.at.offset);
        self
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.to_string();
        write!(f, "{}", self.code())?;
        if !at.is_empty() {
            write!(f, " at {at}")?;
        }
        if !self.found.is_empty() {
            write!(f, ": found {}", self.found)?;
        }
        if !self.expected.is_empty() {
            write!(f, "{} expected {}", if self.found.is_empty() { ":" } else { "," }, self.expected)?;
        }
        Ok(())
    }
}

impl std::error::Error for Corruption {}
