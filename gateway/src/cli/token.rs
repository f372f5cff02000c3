//! `penstock token …`: issues entitlement tokens over the admin API.

use clap::Subcommand;
use http::Method;
use serde_json::json;

use super::client::{Admin, call, sale_id};

/// What to do with entitlement tokens.
#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    /// Issue tokens that let these buyers buy once
    Issue {
        /// Id of the sale
        #[arg(long, value_parser = sale_id)]
        sale: String,
        /// Buyers, one token each
        #[arg(long = "buyer", required = true)]
        buyers: Vec<String>,
        /// Sku; needed if the sale has several
        #[arg(long)]
        sku: Option<String>,
        /// Most units of the one order
        #[arg(long)]
        max_quantity: Option<u32>,
        /// How long the token is valid; without it, until the sale ends
        #[arg(long)]
        expires_in: Option<String>,
    },
}

/// Runs a token command and prints the answer as JSON.
pub(super) async fn run(admin: &Admin, command: &TokenCommand) -> anyhow::Result<()> {
    let TokenCommand::Issue {
        sale,
        buyers,
        sku,
        max_quantity,
        expires_in,
    } = command;
    let wanted = json!({
        "buyers": buyers, "sku": sku, "max_quantity": max_quantity, "expires_in": expires_in,
    });
    let path = format!("/admin/v1/sales/{sale}/tokens");
    admin
        .output
        .print(&call(admin, Method::POST, &path, wanted).await?)
}
