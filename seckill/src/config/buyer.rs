//! `buyer` and `[seckill.jwt]`: who says who buys.

use settings::{Inputs, Section};

use super::keys::{ED_DSA, ES256, HS256, RS256, read_key};
use crate::api::identity::{Identity, Jwt};

const HEADER: &str = "header:x-buyer-id";

/// Reads both. `None` after a problem.
pub(super) fn buyer(seckill: &Section<'_>, inputs: &Inputs<'_>) -> Option<Identity> {
    let is_jwt = seckill.text("buyer").as_deref() == Some("jwt:sub");
    if is_jwt {
        seckill.require(
            "jwt",
            "a table with key_file or key_env, the key of the tokens",
        );
    }
    let jwt = seckill.section("jwt").and_then(|section| {
        if !is_jwt {
            seckill.problem("jwt", "is only read with buyer = \"jwt:sub\"");
        }
        jwt(section, inputs)
    });
    if is_jwt {
        return jwt.map(|jwt| Identity::Jwt(Box::new(jwt)));
    }
    let form = "header:NAME with a valid header name, or jwt:sub";
    let read = |text: &str| text.strip_prefix("header:")?.parse().ok();
    match seckill.value("buyer") {
        None => read(HEADER),
        Some(_) => seckill.parsed("buyer", form, read),
    }
    .map(Identity::Header)
}

fn jwt(section: Section<'_>, inputs: &Inputs<'_>) -> Option<Jwt> {
    let key = read_key(&section, &[HS256, RS256, ES256, ED_DSA], inputs);
    let (issuer, audience) = (section.text("issuer"), section.text("audience"));
    section.finish();
    let key = key?;
    Some(Jwt::new(
        key.verify,
        key.algorithm,
        issuer.as_deref(),
        audience.as_deref(),
    ))
}
