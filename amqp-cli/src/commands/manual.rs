//! `amqp completions` and `amqp man`.

use std::{fs, path::PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

use crate::{
    failure::{Failure, Outcome},
    terminal::Output,
};

/// Prints the completions of a shell.
#[derive(Args, Clone, Debug)]
#[command(after_help = COMPLETION_EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

const COMPLETION_EXAMPLES: &str = "Examples:
  amqp completions bash > ~/.local/share/bash-completion/completions/amqp
  amqp completions zsh > ~/.zfunc/_amqp
  amqp completions fish > ~/.config/fish/completions/amqp.fish";

/// Prints the manual page, or writes those of all commands to a folder.
#[derive(Args, Clone, Debug)]
#[command(after_help = MAN_EXAMPLES)]
pub(crate) struct ManArgs {
    /// The folder, which must exist. amqp-tools has pages named amqp-publish and amqp-consume, too.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

const MAN_EXAMPLES: &str = "Examples:
  amqp man | man -l -
  mkdir -p ~/.local/share/man/man1 && amqp man --out ~/.local/share/man/man1";

impl CompletionsArgs {
    pub(crate) fn run(self, mut command: Command) -> Outcome {
        // The generator panics where it cannot write.
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command, "amqp", &mut text);
        print(&text)
    }
}

impl ManArgs {
    pub(crate) fn run(self, command: Command) -> Outcome {
        let Some(folder) = self.out else {
            let mut text = Vec::new();
            clap_mangen::Man::new(command).render(&mut text)?;
            return print(&text);
        };
        let shown = folder.display();
        if !fs::metadata(&folder).is_ok_and(|it| it.is_dir()) {
            return Err(Failure::usage(format_args!("{shown}: no such folder")));
        }
        clap_mangen::generate_to(command, &folder)
            .map_err(|error| Failure::failed(format_args!("cannot write to {shown}: {error}")))
    }
}

fn print(text: &[u8]) -> Outcome {
    use std::io::Write as _;
    let mut out = Output::new();
    out.write_all(text)?;
    Ok(out.flush()?)
}
