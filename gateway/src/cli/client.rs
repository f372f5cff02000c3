//! The admin API as the commands see it: where it is, one call, and how an answer is printed.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use seckill::ids::SaleId;
use serde_json::Value;

use super::answer_text;

/// Keeps what every command of the admin API takes apart from what one command is about, in the help.
const ADMIN_API: &str = "Admin API";

/// Where the admin API is.
#[derive(Debug, Clone, Args)]
pub struct Admin {
    /// Address of the admin API
    #[arg(
        long,
        global = true,
        help_heading = ADMIN_API,
        env = "PENSTOCK_ADMIN",
        default_value = "http://127.0.0.1:9900"
    )]
    admin: Uri,
    /// File that holds the admin API's bearer token
    #[arg(long, global = true, help_heading = ADMIN_API, env = "PENSTOCK_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Seconds to wait for an answer
    #[arg(long, global = true, help_heading = ADMIN_API, default_value_t = LONGEST_S, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// How an answer is printed.
    #[command(flatten)]
    pub(crate) output: Output,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Output {
    /// How to print the answer [default: text on a terminal, otherwise json]
    #[arg(long, global = true, help_heading = ADMIN_API, value_enum, env = "PENSTOCK_OUTPUT")]
    output: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

impl Output {
    /// Prints an answer.
    pub(crate) fn print(self, value: &Value) -> anyhow::Result<()> {
        let mut out = std::io::stdout();
        match self.is_text() {
            true => write!(out, "{}", answer_text::text(value)),
            false => writeln!(out, "{value:#}"),
        }
        .context("standard output")
    }

    /// Whether a person reads it.
    pub(crate) fn is_text(self) -> bool {
        let is_terminal = || std::io::stdout().is_terminal();
        self.output
            .map_or_else(is_terminal, |format| format == Format::Text)
    }
}

/// A reconciliation of a large sale takes a minute; a node that is stuck never answers.
const LONGEST_S: u64 = 120;

/// A sale's id as an argument. It stands in the path of a call: `spring?` must not be taken for `spring`.
pub(crate) fn sale_id(text: &str) -> Result<String, String> {
    match SaleId::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(wrong) => Err(format!(
            "must be {} to {} characters of {}",
            wrong.min, wrong.max, wrong.allowed
        )),
    }
}

/// One call of the admin API. A problem document becomes the error's text.
pub(crate) async fn call(
    admin: &Admin,
    method: Method,
    path: &str,
    body: Value,
) -> anyhow::Result<Value> {
    call_on(admin, method, path, body, None).await
}

/// Reads a public document.
pub(crate) async fn get(server: &Uri, path: &str) -> anyhow::Result<Value> {
    let admin = Admin {
        admin: server.clone(),
        token_file: None,
        timeout: LONGEST_S,
        output: Output::default(),
    };
    call(&admin, Method::GET, path, Value::Null).await
}

/// [`call`], made from a version of what the path names.
pub(crate) async fn call_on(
    admin: &Admin,
    method: Method,
    path: &str,
    body: Value,
    version: Option<u64>,
) -> anyhow::Result<Value> {
    let limit = Duration::from_secs(admin.timeout);
    tokio::time::timeout(limit, ask(admin, method, path, body, version))
        .await
        .map_err(|_elapsed| {
            anyhow::anyhow!(
                "no answer from {} within {} s: what was asked may still be done; look, then ask again (--timeout waits longer)",
                admin.admin,
                admin.timeout
            )
        })?
}

async fn ask(
    admin: &Admin,
    method: Method,
    path: &str,
    body: Value,
    version: Option<u64>,
) -> anyhow::Result<Value> {
    let authority = admin
        .admin
        .authority()
        .context("the address must be http://HOST:PORT")?;
    if admin.admin.scheme_str() != Some("http") {
        bail!("{}: the address must be http://HOST:PORT", admin.admin);
    }
    let address = (authority.host(), authority.port_u16().unwrap_or(80));
    let stream = tokio::net::TcpStream::connect(address)
        .await
        .with_context(|| {
            format!("nobody answers at {authority}: is `penstock serve` running there?")
        })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, authority.as_str())
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(version) = version {
        request = request.header(header::IF_MATCH, format!("\"{version}\""));
    }
    if let Some(file) = &admin.token_file {
        let token = std::fs::read_to_string(file)
            .with_context(|| format!("--token-file {}", file.display()))?;
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
    }
    let body = if body.is_null() {
        Bytes::new()
    } else {
        body.to_string().into()
    };
    let response = sender
        .send_request(
            request
                .body(Full::new(body))
                .context("the sale's id cannot stand in a path")?,
        )
        .await?;
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    let document: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    match status {
        StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED => Ok(document),
        _ => bail!(refusal(&document, status)),
    }
}

/// A problem document as a text, with a line for each of its problems.
fn refusal(document: &Value, status: StatusCode) -> String {
    let text = |key: &str| document[key].as_str();
    let mut refusal = format!(
        "{} ({}): {}",
        text("title").unwrap_or("the request was refused"),
        text("code").unwrap_or(status.as_str()),
        text("detail").unwrap_or_default(),
    );
    for problem in document["problems"].as_array().into_iter().flatten() {
        refusal += "\n  ";
        refusal += problem.as_str().unwrap_or_default();
    }
    refusal
}

/// A `--file`: JSON; `-` is standard input.
pub(crate) fn read_json(path: &Path) -> anyhow::Result<Value> {
    let text = read_text(path)?;
    serde_json::from_str(&text).with_context(|| format!("--file {}", path.display()))
}

pub(crate) fn read_text(path: &Path) -> anyhow::Result<String> {
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    text.with_context(|| format!("--file {}", path.display()))
}
