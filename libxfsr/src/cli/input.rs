//! Reading what people wrote: files and pipes of commands and options. What is named may be anything, and may never end.

use super::interrupted;
use crate::error::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// How long to wait at a time before asking for Ctrl-C again.
const STEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// How many steps a named pipe may have nobody that writes to it.
const STEPS_ALONE: u32 = 10;

/// A reader that Ctrl-C ends while it waits; then, and where a pipe has nobody at its other end, reading fails.
struct Patient<F> {
    from: F,
    /// Steps that may pass before somebody must have opened the other end.
    alone: u32,
}

impl<F: AsFd + Read> Read for Patient<F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if interrupted() {
                return Err(io::Error::other("stopped"));
            }
            let ready = match poll(&mut [PollFd::new(&self.from, PollFlags::IN)], Some(&STEP)) {
                Ok(n) => n > 0,
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            if !ready && self.alone == 0 {
                continue;
            }
            match self.from.read(buf) {
                Ok(0) if !ready => {
                    self.alone -= 1;
                    if self.alone == 0 {
                        return Err(io::Error::new(ErrorKind::NotConnected, "a pipe that nobody writes to"));
                    }
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => self.alone = 0,
                done => {
                    self.alone = 0;
                    return done;
                }
            }
        }
    }
}

/// The bytes of a file, pipe or device, at most so many. Waiting for them ends at Ctrl-C where [`watch`](super::watch) was called.
///
/// # Errors
/// [`Error::Open`] where it cannot be read, is longer, or is a pipe that nobody writes to; [`Error::Stopped`].
pub fn read_file(path: impl AsRef<Path>, most: u64) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let failed = |e| if interrupted() { Error::Stopped } else { Error::open(path, e) };
    // To open a pipe that nobody writes to would wait for ever.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file: File = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(failed)?;
    let pipe = file.metadata().map_err(failed)?.file_type().is_fifo();
    let mut bytes = Vec::new();
    let alone = if pipe { STEPS_ALONE } else { 0 };
    Patient { from: file, alone }.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(failed(io::Error::new(ErrorKind::FileTooLarge, format!("longer than {most} bytes"))));
    }
    Ok(bytes)
}

/// The lines of standard input, without their ends, each of at most so many bytes. Waiting for one ends at Ctrl-C where
/// [`watch`](super::watch) was called; that, a line that is longer, or a failure is the last item.
pub fn standard_lines(most: u64) -> impl Iterator<Item = Result<Vec<u8>>> {
    // The descriptor itself: what a buffer of the runtime's holds already, waiting would not see.
    let input = io::stdin().as_fd().try_clone_to_owned().map(|fd| Patient { from: File::from(fd), alone: 0 });
    let failed = input.as_ref().err().map(|e| Err(Error::open("standard input", io::Error::from(e.kind()))));
    failed.into_iter().chain(input.ok().into_iter().flat_map(move |input| lines(input, most)))
}

fn lines(from: impl Read, most: u64) -> impl Iterator<Item = Result<Vec<u8>>> {
    let mut from = Some(BufReader::new(from));
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        let read = from.as_mut()?.take(most.saturating_add(1)).read_until(b'\n', &mut line);
        let failed = match read {
            Ok(0) => {
                from = None;
                return None;
            }
            Ok(_) if line.last() == Some(&b'\n') => {
                line.pop();
                return Some(Ok(line));
            }
            Ok(n) if n as u64 <= most => return Some(Ok(line)),
            Ok(_) => io::Error::new(ErrorKind::FileTooLarge, format!("a line is longer than {most} bytes")),
            Err(e) => e,
        };
        from = None;
        Some(Err(if interrupted() { Error::Stopped } else { Error::open("standard input", failed) }))
    })
}

#[cfg(test)]
mod tests {
    use super::{lines, read_file};
    use std::io::Write as _;
    use std::time::{Duration, Instant};

    #[test]
    fn files_and_pipes_are_read_and_all_else_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("file"), "four").expect("a file");
        assert_eq!(read_file(at("file"), 4).expect("a file"), b"four");
        for (path, part) in [
            (at("file"), "longer than 3 bytes"),
            (at("none"), "No such file"),
            (at(""), "directory"),
            ("/dev/zero".into(), "longer than 3 bytes"),
        ] {
            let said = read_file(&path, 3).expect_err("no bytes").to_string();
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(read_file("/dev/null", 3).expect("nothing"), b"");

        let pipe = at("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
        let since = Instant::now();
        let said = read_file(&pipe, 3).expect_err("nobody writes").to_string();
        assert!(said.contains("nobody writes") && since.elapsed() < Duration::from_secs(10), "{said}");
        // Who opens it and writes slowly is waited for.
        let other = pipe.clone();
        let writer = std::thread::spawn(move || {
            let mut file = std::fs::File::options().write(true).open(other).expect("the pipe");
            std::thread::sleep(Duration::from_millis(1500));
            file.write_all(b"slow").expect("writing");
        });
        assert_eq!(read_file(&pipe, 4).expect("a pipe"), b"slow");
        writer.join().expect("a writer");
    }

    #[test]
    fn lines_have_a_greatest_length() {
        let all: Vec<_> = lines(&b"one\n\nthree\nfo"[..], 5).map(|l| l.ok()).collect();
        assert_eq!(all, [Some(b"one".to_vec()), Some(vec![]), Some(b"three".to_vec()), Some(b"fo".to_vec())]);
        let mut long = lines(std::io::repeat(7), 5);
        assert!(long.next().is_some_and(|l| l.is_err()) && long.next().is_none());
    }
}
