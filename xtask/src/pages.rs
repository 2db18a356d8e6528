//! Man pages and completions, from the definitions with which the programs parse.

use anyhow::{Context as _, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use libxfsr::cli::Manual;
use std::path::{Path, PathBuf};

/// The programs.
fn manuals() -> [Manual; 5] {
    [xfsr_db::manual(), xfsr_mkfs::manual(), xfsr_repair::manual(), xfsr_scrub::manual(), xfsr_spaceman::manual()]
}

/// Section 8: administration.
const SECTION: &str = "8";

fn write(directory: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let path = directory.join(name);
    std::fs::write(&path, bytes).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn section(title: &str, rows: &[(&str, &str)], page: &mut Vec<u8>) -> Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    for (term, meaning) in rows {
        roff.control("TP", []).text([bold(*term)]).text([roman(*meaning)]);
    }
    Ok(roff.to_writer(page)?)
}

fn page(command: &Command, manual: &Manual) -> Result<Vec<u8>> {
    // Exit statuses and examples have sections of their own here.
    let man = Man::new(command.clone().after_help("")).section(SECTION).manual("XFS").source("xfsr");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    section("EXIT STATUS", manual.exit, &mut page)?;
    section("EXAMPLES", manual.examples, &mut page)?;
    if command.get_version().is_some() {
        man.render_version_section(&mut page)?;
    }
    Ok(page)
}

/// Writes a page for each program and each of its subcommands; the files.
pub(crate) fn man(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for manual in manuals() {
        let mut command = manual.command.clone().disable_help_subcommand(true);
        command.build();
        let name = command.get_name().to_owned();
        files.push(write(directory, &format!("{name}.{SECTION}"), &page(&command, &manual)?)?);
        for sub in command.get_subcommands() {
            // Names of commands live as long as the program; there are a few.
            let full: &'static str = format!("{name}-{}", sub.get_name()).leak();
            let own = Manual { command: sub.clone(), exit: manual.exit, examples: &[] };
            let mut text = page(&sub.clone().name(full), &own)?;
            // What the whole program's page shows, is not repeated.
            if let Some(at) = text.windows(12).position(|w| w == b".SH EXAMPLES") {
                text.truncate(at);
            }
            files.push(write(directory, &format!("{full}.{SECTION}"), &text)?);
        }
    }
    Ok(files)
}

/// Writes completions of each program for each shell; the files.
pub(crate) fn completions(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for manual in manuals() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut command = manual.command.clone();
            let name = command.get_name().to_owned();
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command, &name, &mut text);
            let file = match shell {
                Shell::Zsh => format!("_{name}"),
                Shell::Fish => format!("{name}.fish"),
                _ => format!("{name}.bash"),
            };
            files.push(write(directory, &file, &text)?);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::{completions, man, manuals};
    use std::process::Command;

    #[test]
    fn each_program_has_a_page_with_its_options_exit_statuses_and_examples() {
        let directory = tempfile::tempdir().unwrap();
        let files = man(directory.path()).unwrap();
        for manual in manuals() {
            let name = manual.command.get_name();
            let file = directory.path().join(format!("{name}.8"));
            assert!(files.contains(&file), "{name}");
            let text = std::fs::read_to_string(&file).unwrap();
            for part in [".TH", ".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH \"EXIT STATUS\"", ".SH EXAMPLES"] {
                assert!(text.contains(part), "{name}: {part}\n{text}");
            }
            for argument in manual.command.get_arguments() {
                if let Some(letter) = argument.get_short() {
                    assert!(text.contains(&format!("\\-{letter}")), "{name}: -{letter}");
                }
            }
            assert!(
                !manual.exit.is_empty() && manual.examples.iter().all(|(line, _)| line.starts_with(name)),
                "{name}"
            );
        }
        assert!(files.iter().any(|f| f.ends_with("xfsr-spaceman-freesp.8")), "{files:?}");
    }

    #[test]
    fn examples_are_command_lines_that_the_program_takes() {
        for manual in manuals() {
            for (line, _) in manual.examples {
                let line = line.split(" | ").next().unwrap();
                // Words in quotes stay together.
                let words: Vec<String> = line
                    .split('\'')
                    .enumerate()
                    .flat_map(|(i, part)| match i % 2 {
                        0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
                        _ => vec![part.to_owned()],
                    })
                    .collect();
                if let Err(e) = manual.command.clone().try_get_matches_from(&words) {
                    panic!("{line}: {e}");
                }
            }
        }
    }

    #[test]
    fn completions_are_made_for_three_shells() {
        let directory = tempfile::tempdir().unwrap();
        let files = completions(directory.path()).unwrap();
        assert_eq!(files.len(), 15);
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(text.contains("json") || text.contains("xfsr-db"), "{}", file.display());
            if file.extension().is_some_and(|e| e == "bash") {
                // The shell is there on every machine that runs `.ci/run`.
                let parsed = Command::new("bash").arg("-n").arg(&file).status();
                assert!(parsed.is_ok_and(|s| s.success()), "{}", file.display());
            }
        }
    }
}
