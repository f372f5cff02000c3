//! Asks the admin API. Every question takes a connection of its own: there are few, and none is in a hurry.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::history::event::SaleFacts;
use crate::ledger::{LedgerRow, SaleReport};
use crate::scenario::Admin;

/// An admin listener that needs longer than this is not well.
const TIMEOUT: Duration = Duration::from_secs(15);
/// A page of a thousand orders is a few hundred kilobytes.
const MAX_ANSWER: usize = 16 << 20;
const PAGE: u32 = 1000;

/// Asks the admin API.
pub struct AdminClient {
    address: String,
    host: HeaderValue,
    token: Option<HeaderValue>,
}

/// The admin API answered 404.
#[derive(Debug, thiserror::Error)]
#[error("answered 404 Not Found")]
struct NotFound;

#[derive(Deserialize)]
struct OrdersPage {
    orders: Vec<LedgerRow>,
    next: Option<String>,
}

impl AdminClient {
    /// A client of the admin API at that address.
    pub fn new(admin: &Admin) -> anyhow::Result<AdminClient> {
        let uri: Uri = admin.url.parse().context("admin url")?;
        let authority = uri.authority().context("admin url has no host")?;
        let token = admin
            .token_file
            .as_ref()
            .map(|path| {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read token_file {}", path.display()))?;
                let mut value = HeaderValue::from_str(&format!("Bearer {}", text.trim()))
                    .context("token_file does not hold a token")?;
                value.set_sensitive(true);
                anyhow::Ok(value)
            })
            .transpose()?;
        Ok(AdminClient {
            address: format!("{}:{}", authority.host(), uri.port_u16().unwrap_or(80)),
            host: HeaderValue::from_str(authority.as_str())?,
            token,
        })
    }

    /// The sale's own account.
    pub async fn report(&self, sale: &str) -> anyhow::Result<SaleReport> {
        self.get(&format!("/admin/v1/sales/{sale}/report")).await
    }

    /// The sale's document, as far as the rules of [`crate::oracle`] go.
    pub async fn sale(&self, sale: &str) -> anyhow::Result<SaleFacts> {
        self.get(&format!("/admin/v1/sales/{sale}")).await
    }

    /// Whether the sale exists. An admin API that cannot be asked does not say no.
    pub async fn has_sale(&self, sale: &str) -> bool {
        let path = format!("/admin/v1/sales/{sale}");
        let asked = tokio::time::timeout(TIMEOUT, self.fetch(&path)).await;
        !matches!(asked, Ok(Err(error)) if error.is::<NotFound>())
    }

    /// Every order the ledger holds for the sale.
    pub async fn orders(&self, sale: &str) -> anyhow::Result<Vec<LedgerRow>> {
        let base = format!("/admin/v1/sales/{sale}/orders?limit={PAGE}");
        let mut rows = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let path = match &cursor {
                Some(after) => format!("{base}&after={}", escape(after)),
                None => base.clone(),
            };
            let page: OrdersPage = self.get(&path).await?;
            ensure!(
                page.next.is_none() || page.next != cursor,
                "the admin API gives the same cursor twice"
            );
            rows.extend(page.orders);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(rows);
            }
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let body = tokio::time::timeout(TIMEOUT, self.fetch(path))
            .await
            .with_context(|| format!("GET {path}: no answer within {TIMEOUT:?}"))?
            .with_context(|| format!("GET {path} at {}", self.address))?;
        serde_json::from_slice(&body).with_context(|| format!("GET {path}: not the expected JSON"))
    }

    async fn fetch(&self, path: &str) -> anyhow::Result<Bytes> {
        let stream = TcpStream::connect(&self.address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::get(path)
            .header(HOST, self.host.clone())
            .body(Empty::<Bytes>::new())?;
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(anyhow::Error::from_boxed)?
                .to_bytes();
            if status == StatusCode::NOT_FOUND {
                return Err(NotFound.into());
            }
            if !status.is_success() {
                let start = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
                bail!("answered {status}: {start}");
            }
            Ok(body)
        };
        tokio::pin!(connection);
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            done = &mut exchange => done,
            ended = &mut connection => {
                // The server may close right behind the answer, which then is already here.
                ended?;
                exchange.await
            }
        }
    }
}

fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
