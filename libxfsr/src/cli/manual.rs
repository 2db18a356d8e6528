//! One definition of a program feeds parsing, `--help`, man page and completions.

use clap::{ArgMatches, Command, FromArgMatches};

/// What is known of a program: its arguments, exit statuses and some examples.
#[derive(Clone, Debug)]
pub struct Manual {
    /// The arguments.
    pub command: Command,
    /// Exit statuses and what they mean.
    pub exit: &'static [(&'static str, &'static str)],
    /// Command lines and what they do.
    pub examples: &'static [(&'static str, &'static str)],
}

impl Manual {
    /// Appends exit statuses and examples to the command's help.
    pub fn new(
        command: Command,
        exit: &'static [(&'static str, &'static str)],
        examples: &'static [(&'static str, &'static str)],
    ) -> Self {
        let mut text = "Exit status:\n".to_owned();
        for (code, meaning) in exit {
            text.push_str(&format!("  {code:<4}{meaning}\n"));
        }
        text.push_str("\nExamples:\n");
        for (line, meaning) in examples {
            text.push_str(&format!("  {line}\n        {meaning}\n"));
        }
        let command = command.after_help(text.trim_end().to_owned());
        Self { command, exit, examples }
    }

    /// Parses the process' arguments.
    ///
    /// # Errors
    /// Wrong usage, or a request for help or version: who gets it prints it and ends.
    pub fn parse<T: FromArgMatches>(&self) -> Result<T, clap::Error> {
        let matches: ArgMatches = self.command.clone().try_get_matches()?;
        T::from_arg_matches(&matches).map_err(|e| e.format(&mut self.command.clone()))
    }
}
