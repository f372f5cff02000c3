//! Entitlement tokens: who holds one may buy once in one sale.
//!
//! A token is a JSON Web Token (RFC 7519) whose `typ` is [`TYPE`], bound to a buyer (`sub`) and a sale, minted here or by anybody who
//! holds a key that is configured. Nothing counts its uses: a purchase under it takes its request id from the token's id
//! ([`Entitlement::request`]), and the stock store takes each request id once, ever. A token that names no sku is taken only in
//! a sale that has one, because request ids are kept for each sku.

use ahash::AHashMap;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::{
    ids::{BuyerId, RequestId, SaleId, SkuId},
    jwt,
    sale::Sale,
};

/// The `typ` of an entitlement token, so that no other token signed with the same key passes for one (RFC 8725, 3.11).
pub const TYPE: &str = "entitlement+jwt";
/// How far the clocks of a token's issuer and of this node may differ, for `nbf` and `exp` alike.
pub const LEEWAY_S: u64 = 5;
/// A token of ours has about 350 bytes.
const TOKEN_MAX: usize = 4096;
const ID_MAX: usize = 128;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Its id, unique among all tokens of the sale.
    pub jti: String,
    /// The buyer.
    pub sub: String,
    /// The sale.
    pub sale: String,
    /// The sku; may be missing in a sale that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// Most units of the one order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_quantity: Option<u32>,
    /// When it ends, in unix seconds.
    pub exp: u64,
    /// When it begins, in unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
}

/// One key that tokens may be signed with.
pub struct TokenKey {
    /// Its name in a token's header.
    pub kid: String,
    /// The one algorithm it is used with: a token must not choose how it is checked.
    pub algorithm: Algorithm,
    /// Checks.
    pub verify: DecodingKey,
    /// Mints; only where the key is a shared secret.
    pub sign: Option<EncodingKey>,
}

/// The keys in force.
#[derive(Default)]
pub struct TokenKeys {
    keys: AHashMap<String, TokenKey>,
    /// The first that can mint.
    minting: Option<String>,
}

/// What a valid token allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entitlement {
    /// The id of the one purchase under it.
    pub request: RequestId,
    /// Most units.
    pub max_quantity: Option<u32>,
    /// It was good and is no longer: it buys nothing, and still finds what it bought.
    pub is_expired: bool,
}

/// Why a token is no token here. Which check failed is for the log, not for a client that tries tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Flaw(&'static str);

impl TokenKeys {
    /// Keys of distinct names; the first that can mint does.
    pub fn new(keys: Vec<TokenKey>) -> Self {
        let minting = keys.iter().find(|key| key.sign.is_some());
        Self {
            minting: minting.map(|key| key.kid.clone()),
            keys: keys.into_iter().map(|key| (key.kid.clone(), key)).collect(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Mints a token; `None` if no key can.
    pub fn mint(&self, claims: &Claims) -> Option<String> {
        let key = self.keys.get(self.minting.as_ref()?)?;
        let header = Header {
            typ: Some(TYPE.to_owned()),
            kid: Some(key.kid.clone()),
            ..Header::new(key.algorithm)
        };
        jwt::encode(&header, claims, key.sign.as_ref()?).ok()
    }

    /// What a token allows this buyer in this sale, for this sku.
    pub fn verify(
        &self,
        token: &str,
        sale: &Sale,
        sku: &SkuId,
        buyer: &BuyerId,
        now_s: u64,
    ) -> Result<Entitlement, Flaw> {
        if token.len() > TOKEN_MAX {
            return Err(Flaw("too long"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Flaw("no token"))?;
        if header.typ.as_deref() != Some(TYPE) {
            return Err(Flaw("another type of token"));
        }
        // No extension is known here, so none may be critical (RFC 7515, 4.1.11).
        if header.crit.is_some() {
            return Err(Flaw("critical extensions"));
        }
        let key = header.kid.as_ref().and_then(|kid| self.keys.get(kid));
        let key = key.ok_or(Flaw("unknown key"))?;
        let mut validation = Validation::new(key.algorithm);
        validation.set_required_spec_claims(&["exp", "sub"]);
        // Times are compared below, with the clock that the caller brings.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let claims = jwt::decode::<Claims>(token, &key.verify, &validation)
            .map_err(|_| Flaw("signature or claims"))?
            .claims;
        if claims.sub != buyer.as_str() {
            return Err(Flaw("of another buyer"));
        }
        if claims.sale != sale.id.as_str() {
            return Err(Flaw("of another sale"));
        }
        match &claims.sku {
            Some(named) if named != sku.as_str() => return Err(Flaw("for another sku")),
            None if sale.skus.len() != 1 => {
                return Err(Flaw("names no sku, and the sale has several"));
            }
            Some(_) | None => {}
        }
        if claims.jti.is_empty() || claims.jti.len() > ID_MAX {
            return Err(Flaw("its id is empty or too long"));
        }
        if claims.nbf.unwrap_or(0) > now_s.saturating_add(LEEWAY_S) {
            return Err(Flaw("not valid yet"));
        }
        Ok(Entitlement {
            request: request_of(&sale.id, &claims.jti),
            max_quantity: claims.max_quantity,
            is_expired: claims.exp.saturating_add(LEEWAY_S) <= now_s,
        })
    }
}

/// The request id of the purchase under a token: the same for every use of it.
fn request_of(sale: &SaleId, jti: &str) -> RequestId {
    let text = format!("{sale}\n{jti}");
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let id = format!("tok_{}", hex::encode(&digest.as_ref()[..20]));
    RequestId::try_new(&id).expect("hexadecimal digits are visible ASCII")
}

/// A token's id out of 128 random bits.
pub fn new_id(random: u128) -> String {
    format!("{random:032x}")
}

#[cfg(test)]
mod tests;
