//! The loadtest program: reads the command line, runs it, exits with the code of the result.

use std::process::ExitCode;

use clap::Parser;
use loadtest::cli::{Cli, execute};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => ExitCode::from(runtime.block_on(execute(cli))),
        Err(error) => {
            eprintln!("loadtest: cannot start the runtime: {error}");
            ExitCode::from(1)
        }
    }
}
