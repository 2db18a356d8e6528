//! The definition of the arguments, for help, man page and completions. They are parsed in `args`, as mkfs.xfs parses them: suboptions of
//! one letter may be spread over several options and a file.

use clap::{Arg, ArgAction, Command};
use libxfsr::cli::Manual;
use std::path::PathBuf;

fn list(letter: char, id: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(id).short(letter).value_name(value).action(ArgAction::Append).help(help)
}

fn flag(letter: char, id: &'static str, help: &'static str) -> Arg {
    Arg::new(id).short(letter).action(ArgAction::SetTrue).help(help)
}

fn command() -> Command {
    Command::new("xfsr-mkfs")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Makes an XFS v5 filesystem on a device or in an image file, with the options of mkfs.xfs")
        .long_about(
            "Makes an XFS v5 filesystem on a device or in an image file, with the options of mkfs.xfs. A mounted device is refused; \
             what holds another filesystem or a partition table is refused without -f. NUM is bytes, or takes a suffix: s (sectors), \
             b (blocks), k, m, g, t, p, e; N takes none. Numbers are octal with a leading 0, hexadecimal with 0x.",
        )
        .disable_version_flag(true)
        .arg(list('b', "block", "size=NUM", "Block size, 1024 to 65536"))
        .arg(Arg::new("config").short('c').value_name("options=FILE").help("Read options from a configuration file (INI)"))
        .arg(list(
            'd',
            "data",
            "SUBOPTIONS",
            "Data section: name=PATH,file[=0|1],size=NUM,agcount=N,agsize=NUM,su=NUM,sw=N,sunit=N,swidth=N,noalign,\
             sectsize=NUM,unwritten=1,rtinherit[=0|1],cowextsize=N,extszinherit=N,projinherit=N",
        ))
        .arg(flag('f', "force", "Overwrite what is there; never what is mounted (-C does the same)"))
        .arg(list(
            'i',
            "inode",
            "SUBOPTIONS",
            "Inodes: size=NUM,perblock=N,maxpct=N,align=1,attr=2,projid32bit=1,sparse[=0|1],nrext64[=0|1],exchange[=0|1]",
        ))
        .arg(flag('K', "no-discard", "Do not discard"))
        .arg(list(
            'l',
            "log",
            "SUBOPTIONS",
            "Log: internal[=0|1],logdev=PATH,file[=0|1],size=NUM,agnum=N,su=NUM,sunit=N,sectsize=NUM,version=2,lazy-count=1",
        ))
        .arg(Arg::new("label").short('L').value_name("LABEL").help("Label, at most 12 bytes"))
        .arg(list(
            'm',
            "metadata",
            "SUBOPTIONS",
            "Features: crc=1,finobt=0|1,inobtcount=0|1,bigtime=0|1,reflink=0|1,rmapbt=0|1,metadir=0|1,uuid=UUID",
        ))
        .arg(list('n', "naming", "SUBOPTIONS", "Directories: size=NUM,version=2|ci,ftype=1,parent[=0|1]"))
        .arg(flag('N', "dry-run", "Print the geometry, with -q too, and make nothing"))
        .arg(
            Arg::new("contents")
                .short('p')
                .value_name("[file=]PATH[,...]")
                .help(
                    "Fill it: from a directory (owners, modes, times, hard links, holes, extended attributes, ACLs, devices), or from a prototype file; \
                     with slashes_are_spaces=0|1, seed=N. No root is needed. With SOURCE_DATE_EPOCH and a seed the same input makes the same bytes",
                ),
        )
        .arg(flag('q', "quiet", "Print nothing"))
        .arg(list('r', "realtime", "SUBOPTIONS", "Realtime section: rtdev=PATH,file[=0|1],size=NUM,extsize=NUM,noalign"))
        .arg(list('s', "sector", "size=NUM", "Sector size, 512 to 32768"))
        .arg(flag('V', "version", "Print the version"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print the geometry as JSON"))
        .arg(
            Arg::new("progress")
                .long("progress")
                .value_name("FORM")
                .default_value("text")
                .value_parser(clap::value_parser!(libxfsr::cli::ProgressMode))
                .help("Tell the progress of long work on standard error: as text (only on a terminal), as JSON lines, or not"),
        )
        .arg(
            Arg::new("device")
                .value_name("DEVICE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Device or image file; with -d file,size=NUM it is made where it is missing"),
        )
}

/// The program's arguments, exit statuses and examples.
pub fn manual() -> Manual {
    let exit =
        &[("0", "the filesystem was made"), ("1", "it was not: one sentence says why"), ("130", "ended by Ctrl-C")];
    let examples = &[
        ("xfsr-mkfs -d file,size=1g disk.img", "make an image; it takes only what its metadata needs"),
        ("xfsr-mkfs -m rmapbt=1 -L data /dev/sdb1", "with reverse mappings and a label"),
        ("xfsr-mkfs -d file,size=1g -p rootfs/ disk.img", "an image with a copy of a directory tree"),
        ("xfsr-mkfs -N --json -d agcount=8 /dev/sdb1", "show what would be made, and make nothing"),
    ];
    Manual::new(command(), exit, examples)
}

#[cfg(test)]
mod tests {
    use super::command;
    use crate::args::parse;

    #[test]
    fn the_definition_has_the_letters_that_are_parsed() {
        let defined: Vec<char> = command().get_arguments().filter_map(|a| a.get_short()).collect();
        for letter in ('a'..='z').chain('A'..='Z').filter(|l| !['h', 'C'].contains(l)) {
            let unknown = parse([format!("-{letter}").into(), "=".into(), "/nonexistent".into()].into_iter())
                .is_err_and(|e| e.to_string().starts_with(&format!("-{letter} is not an option;")));
            assert_eq!(unknown, !defined.contains(&letter), "-{letter}");
        }
    }

    #[test]
    fn help_names_exit_status_and_examples() {
        let help = parse(["--help".into()].into_iter()).expect("help").only.expect("text");
        for part in ["-b <size=NUM>", "metadir=0|1", "Exit status:", "Examples:", "--json"] {
            assert!(help.contains(part), "{part} in {help}");
        }
    }
}
