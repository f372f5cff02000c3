//! What a user can type: one file a command.

mod backup;
mod dead_letters;
mod lottery;
mod sale;
mod token;

mod answer_text;
mod client;
pub mod help;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use self::{
    backup::{BackupArgs, RestoreArgs},
    client::{Admin, sale_id},
    dead_letters::DeadLettersCommand,
    lottery::LotteryCommand,
    sale::SaleCommand,
    token::TokenCommand,
};
use crate::{admin::openapi::Api, config::Role, logging};

/// Where the configuration is when nothing else is said.
const DEFAULT_CONFIG: &str = "config/penstock.toml";

/// A gateway in front of a shop: it sells exactly the stock there is.
#[derive(Debug, Parser)]
#[command(name = "penstock", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until a signal to stop, then finish what is in flight.
    Serve {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
        /// Which parts this process runs.
        #[arg(long, value_enum, default_value_t)]
        role: Role,
        /// Let programs on this machine name the buyer: for trying things out.
        #[arg(long)]
        trust_local_buyers: bool,
        /// Take this machine's clock for right, once after it was wrong.
        #[arg(long)]
        accept_clock: bool,
    },
    /// Read the configuration and print every problem in it.
    Check {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Run the whole flow with a peak, and print a verdict.
    #[cfg(feature = "demo")]
    Demo(crate::demo::DemoArgs),
    /// Create, list, show, change and end sales over the admin API.
    Sale {
        /// Where the admin API is.
        #[command(flatten)]
        admin: Admin,
        #[command(subcommand)]
        command: SaleCommand,
    },
    /// List and replay what could not be settled, over the admin API.
    DeadLetters {
        /// Where the admin API is.
        #[command(flatten)]
        admin: Admin,
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
    /// Issue entitlement tokens over the admin API.
    Token {
        /// Where the admin API is.
        #[command(flatten)]
        admin: Admin,
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Commit to a seed, draw a lottery, and verify a draw.
    Lottery {
        #[command(subcommand)]
        command: LotteryCommand,
    },
    /// Compare stock, orders and money, and repair what can be.
    Reconcile {
        /// Where the admin API is.
        #[command(flatten)]
        admin: Admin,
        /// Id of one sale; without it, all sales and the payment ledger.
        #[arg(value_parser = sale_id)]
        sale: Option<String>,
        /// Report only; change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Have a running node read its configuration again.
    Reload {
        /// Where the admin API is.
        #[command(flatten)]
        admin: Admin,
    },
    /// Copy store and ledger of a running node, both at one instant.
    Backup {
        /// Where the admin API is.
        #[command(flatten)]
        admin: Admin,
        /// Where it goes.
        #[command(flatten)]
        args: BackupArgs,
    },
    /// Restore a backup, verify it, and compare store and ledger.
    Restore(RestoreArgs),
    /// Print the sale API or the admin API as an OpenAPI 3.1 document.
    Openapi {
        /// Which of the two.
        #[arg(value_enum)]
        api: Api,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Runs a command that is neither `serve` nor `check`; its exit code.
pub async fn run(command: Command) -> anyhow::Result<u8> {
    let is_well = match command {
        Command::Serve { .. } | Command::Check { .. } => {
            anyhow::bail!("serving and checking are main's")
        }
        #[cfg(feature = "demo")]
        Command::Demo(args) => {
            logging::install_quiet();
            return crate::demo::run(&args).await;
        }
        Command::Sale { admin, command } => sale::run(&admin, &command).await.map(|()| true),
        Command::DeadLetters { admin, command } => dead_letters::run(&admin, &command).await,
        Command::Token { admin, command } => token::run(&admin, &command).await.map(|()| true),
        Command::Lottery { command } => lottery::run(&command).await,
        Command::Reconcile {
            admin,
            sale,
            dry_run,
        } => sale::reconcile(&admin, sale.as_deref(), dry_run).await,
        Command::Reload { admin } => {
            let path = "/admin/v1/reload";
            let done = client::call(&admin, http::Method::POST, path, serde_json::Value::Null);
            admin.output.print(&done.await?).map(|()| true)
        }
        Command::Backup { admin, args } => backup::backup(&admin, &args).await.map(|()| true),
        Command::Restore(args) => {
            logging::install_quiet();
            backup::restore(&args).await
        }
        Command::Openapi { api } => {
            use std::io::Write;
            // Who has stopped reading has what they wanted.
            let _ = writeln!(std::io::stdout(), "{:#}", api.document());
            Ok(true)
        }
        Command::Completions { shell } => {
            let mut command = help::command();
            clap_complete::generate(shell, &mut command, "penstock", &mut std::io::stdout());
            Ok(true)
        }
    };
    is_well.map(|is_well| u8::from(!is_well))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serving_needs_no_arguments() {
        let cli = Cli::try_parse_from(["penstock", "serve"]).unwrap();
        let Command::Serve {
            config,
            role,
            trust_local_buyers,
            accept_clock,
        } = cli.command
        else {
            panic!("not serve");
        };
        assert_eq!((config, role), (PathBuf::from(DEFAULT_CONFIG), Role::All));
        assert!(!trust_local_buyers && !accept_clock);
    }
}
