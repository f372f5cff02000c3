//! Entitlement tokens as a shop's own system would sign them: by hand, so that what the gateways accept is what RFC 7519 and the
//! documentation say, and not what their own code says.

use std::path::Path;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{digest, hmac};
use serde_json::{Value, json};

use crate::{goods::SALE, recorder::wall_ms};

const KID: &str = "chaos";
const SECRET: &[u8] = b"the secret of the chaos runs";
/// The documented leeway between clocks.
const LEEWAY_S: u64 = 5;

/// A token and what follows from it.
#[derive(Debug, Clone)]
pub struct Token {
    /// As it is sent.
    pub text: String,
    /// Its id.
    pub id: String,
    /// The request id of the one purchase under it.
    pub request: String,
}

/// How good a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// For the whole run.
    Good,
    /// It ends within the run, leeway included.
    Ending,
    /// It ended before.
    Expired,
    /// Signed with another secret.
    Forged,
}

impl Token {
    /// A token of that buyer for one purchase of that sku.
    pub fn sign(buyer: &str, sku: &str, id: String, worth: Worth) -> Token {
        let now_s = wall_ms() / 1000;
        let exp = match worth {
            Worth::Good | Worth::Forged => now_s + 3_600,
            Worth::Ending => now_s - LEEWAY_S + 2,
            Worth::Expired => now_s - 60,
        };
        let secret = match worth {
            Worth::Forged => b"somebody else's secret",
            _ => SECRET,
        };
        let header = json!({"typ": "entitlement+jwt", "alg": "HS256", "kid": KID});
        let claims = json!({"jti": id, "sub": buyer, "sale": SALE, "sku": sku, "exp": exp});
        let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
        Token {
            text: format!("{signed}.{signature}"),
            request: request_of(&id),
            id,
        }
    }
}

/// The id of a token that is on its way, and the request id of the one purchase under it.
pub fn id_and_request(text: &str) -> Option<(String, String)> {
    let claims = URL_SAFE_NO_PAD.decode(text.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let id = claims["jti"].as_str()?.to_owned();
    let request = request_of(&id);
    Some((id, request))
}

/// The documented request id of the purchase under a token.
fn request_of(id: &str) -> String {
    let digest = digest::digest(&digest::SHA256, format!("{SALE}\n{id}").as_bytes());
    let hex = digest.as_ref()[..20].iter();
    format!(
        "tok_{}",
        hex.map(|byte| format!("{byte:02x}")).collect::<String>()
    )
}

/// The line of `[seckill]` that lets a node check these tokens; their secret goes into a file of the folder.
pub fn keys_line(folder: &Path) -> String {
    let file = folder.join("token.key");
    std::fs::write(&file, SECRET).unwrap();
    format!(
        "token_keys = [{{ kid = \"{KID}\", algorithm = \"HS256\", key_file = \"{}\" }}]",
        file.display()
    )
}
