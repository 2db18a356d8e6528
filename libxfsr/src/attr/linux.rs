//! Attributes as Linux names them: a namespace in front of the name, and access control lists in a form of its own.

use super::ACLS;
use crate::error::{Error, Result};
use crate::format::attr::{AclEntry, AttrFlags};
use crate::text::escape;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Prefixes, and the namespaces that they stand for.
const PREFIXES: [(&[u8], AttrFlags); 3] =
    [(b"user.", AttrFlags::empty()), (b"trusted.", AttrFlags::ROOT), (b"security.", AttrFlags::SECURE)];

/// An attribute as it stands on the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OnDisk {
    /// Flags of its namespace.
    pub flags: AttrFlags,
    /// Name without namespace.
    pub name: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

/// Namespace and name on the disk of what Linux calls `name`. Of an access control list they are those of the attribute that holds it.
///
/// # Errors
/// [`Error::Unsupported`] for a namespace that XFS does not have.
pub fn split(name: &[u8]) -> Result<(AttrFlags, &[u8])> {
    if let Some((disk, _)) = ACLS.iter().find(|(_, linux)| *linux == name) {
        return Ok((AttrFlags::ROOT, disk));
    }
    let found = PREFIXES.iter().find_map(|(prefix, flags)| Some((*flags, name.strip_prefix(*prefix)?)));
    found.filter(|(_, rest)| !rest.is_empty()).ok_or_else(|| {
        Error::unsupported(format!("{} is not in one of the namespaces user, trusted and security", escape(name)))
    })
}

/// What is to be set where Linux is asked to set `name` to `value`. An access control list is checked and brought into the form that it has on the disk.
/// None where there is to be no such attribute: an access control list that says no more than the mode does.
///
/// Setting `system.posix_acl_access` changes the mode as well: [`Acl::permissions`].
///
/// # Errors
/// As [`split`] and [`Acl::from_linux`].
pub fn to_disk(name: &[u8], value: &[u8]) -> Result<Option<OnDisk>> {
    let (flags, disk) = split(name)?;
    let made = |value| Some(OnDisk { flags, name: disk.to_vec(), value });
    if !ACLS.iter().any(|(_, linux)| *linux == name) {
        return Ok(made(value.to_vec()));
    }
    let acl = Acl::from_linux(value)?;
    let access = name == b"system.posix_acl_access";
    Ok(if acl.entries.is_empty() || access && acl.is_minimal() { None } else { made(acl.to_disk()) })
}

/// Entry of an access control list as Linux shows it: `linux/posix_acl_xattr.h`.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct LinuxEntry {
    tag: U16,
    perm: U16,
    id: U32,
}

const VERSION: u32 = 2;
const NOBODY: u32 = u32::MAX;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// In the order in which entries stand.
const TAGS: [u16; 6] = [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER];

/// A POSIX access control list: tags, permissions and ids.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Acl {
    entries: Vec<(u16, u16, u32)>,
}

impl Acl {
    /// From the value that Linux has for `system.posix_acl_access` and `system.posix_acl_default`. An empty value is a list of nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no list, or one that Linux refuses: owner, group and others once each, a mask where users or groups
    /// are named, in that order.
    pub fn from_linux(value: &[u8]) -> Result<Self> {
        let bad = |what: &'static str| Error::invalid(format!("no access control list: {what}"));
        if value.is_empty() {
            return Ok(Self::default());
        }
        let (version, rest) = U32::ref_from_prefix(value).map_err(|_| bad("too short"))?;
        if version.get() != VERSION {
            return Err(bad("not of version 2"));
        }
        let entries = <[LinuxEntry]>::ref_from_bytes(rest).map_err(|_| bad("a part of an entry"))?;
        let entries: Vec<_> = entries.iter().map(|e| (e.tag.get(), e.perm.get(), e.id.get())).collect();
        if entries.len() > (65536 - 4) / size_of::<AclEntry>() {
            return Err(bad("more entries than a value holds"));
        }
        let mut last = 0;
        for (tag, perm, id) in &entries {
            let place = TAGS.iter().position(|t| t == tag).ok_or_else(|| bad("an unknown tag"))?;
            let named = matches!(*tag, USER | GROUP);
            // Named ones may follow others of their kind.
            if place < last || (place == last && !named && *tag != USER_OBJ) {
                return Err(bad("entries out of order"));
            }
            if *perm & !7 != 0 {
                return Err(bad("unknown permissions"));
            }
            if named && *id == NOBODY {
                return Err(bad("a user or a group without a number"));
            }
            last = place;
        }
        let count = |tag| entries.iter().filter(|e| e.0 == tag).count();
        let named = count(USER) + count(GROUP) > 0;
        if !entries.is_empty() && (count(USER_OBJ) != 1 || count(GROUP_OBJ) != 1 || count(OTHER) != 1) {
            return Err(bad("owner, group and others must be named once each"));
        }
        if named && count(MASK) == 0 {
            return Err(bad("users or groups without a mask"));
        }
        Ok(Self { entries })
    }
    /// Whether it says no more than a mode can.
    pub fn is_minimal(&self) -> bool {
        self.entries.iter().all(|e| matches!(e.0, USER_OBJ | GROUP_OBJ | OTHER))
    }
    /// The permissions of a mode (nine bits) that go with it; none where it is empty. The group's are those of the mask, where there is one.
    pub fn permissions(&self) -> Option<u16> {
        let of = |tag| self.entries.iter().find(|e| e.0 == tag).map(|e| e.1 & 7);
        let group = of(MASK).or_else(|| of(GROUP_OBJ))?;
        Some(of(USER_OBJ)? << 6 | group << 3 | of(OTHER)?)
    }
    /// As it stands on the disk.
    pub fn to_disk(&self) -> Vec<u8> {
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let mut out = zerocopy::big_endian::U32::new(count).as_bytes().to_vec();
        for (tag, perm, id) in &self.entries {
            let id = if matches!(*tag, USER | GROUP) { *id } else { NOBODY };
            let entry = AclEntry { tag: u32::from(*tag).into(), id: id.into(), perm: (*perm).into(), pad: 0.into() };
            out.extend_from_slice(entry.as_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::{Acl, split, to_disk};
    use crate::attr::Attr;
    use crate::format::attr::{AttrFlags, verify_acl};

    fn linux(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut v = vec![2, 0, 0, 0];
        for (tag, perm, id) in entries {
            v.extend([*tag as u8, 0, *perm as u8, 0]);
            v.extend((0..4).map(|i| (id >> (8 * i)) as u8));
        }
        v
    }

    #[test]
    fn names_have_namespaces() {
        assert_eq!(split(b"user.a.b").unwrap(), (AttrFlags::empty(), &b"a.b"[..]));
        assert_eq!(split(b"trusted.x").unwrap(), (AttrFlags::ROOT, &b"x"[..]));
        assert_eq!(split(b"security.selinux").unwrap(), (AttrFlags::SECURE, &b"selinux"[..]));
        assert_eq!(split(b"system.posix_acl_default").unwrap(), (AttrFlags::ROOT, &b"SGI_ACL_DEFAULT"[..]));
        for bad in [&b"user."[..], b"user", b"system.nfs4_acl", b"parent.x", b""] {
            assert!(split(bad).is_err());
        }
    }

    #[test]
    fn lists_come_back_as_they_were() {
        let none = u32::MAX;
        let value =
            linux(&[(1, 6, none), (2, 5, 1000), (2, 7, 70000), (4, 4, none), (8, 1, 5), (16, 7, none), (32, 0, none)]);
        let acl = Acl::from_linux(&value).unwrap();
        assert!(!acl.is_minimal());
        assert_eq!(acl.permissions(), Some(0o670));
        let disk = to_disk(b"system.posix_acl_access", &value).unwrap().unwrap();
        assert_eq!((disk.flags, &disk.name[..]), (AttrFlags::ROOT, &b"SGI_ACL_FILE"[..]));
        verify_acl(disk.flags, &disk.name, &disk.value).unwrap();
        let attr = Attr { flags: disk.flags, name: disk.name, value: disk.value };
        assert_eq!(attr.acl_value().unwrap(), value);
        let minimal = linux(&[(1, 6, none), (4, 4, none), (32, 0, none)]);
        assert_eq!(to_disk(b"system.posix_acl_access", &minimal).unwrap(), None);
        assert!(to_disk(b"system.posix_acl_default", &minimal).unwrap().is_some());
        assert_eq!(Acl::from_linux(&minimal).unwrap().permissions(), Some(0o640));
        assert_eq!(to_disk(b"user.a", b"v").unwrap().unwrap().value, b"v");
    }

    #[test]
    fn what_linux_refuses_is_refused() {
        let none = u32::MAX;
        let (owner, group, other) = ((1, 6, none), (4, 4, none), (32, 0, none));
        let good = linux(&[owner, group, other]);
        for bad in [
            linux(&[owner, other, group]),
            linux(&[owner, group]),
            linux(&[owner, owner, group, other]),
            linux(&[owner, (2, 6, 7), group, other]),
            linux(&[owner, (2, 6, none), group, (16, 7, none), other]),
            linux(&[(1, 8, none), group, other]),
            linux(&[owner, group, (3, 0, 0), other]),
            good[..good.len() - 1].to_vec(),
            [&[1, 0, 0, 0], &good[4..]].concat(),
            vec![2, 0],
        ] {
            assert!(Acl::from_linux(&bad).is_err(), "{bad:?}");
        }
    }
}
