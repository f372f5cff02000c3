//! Drawing a lottery, and calling its reserve.

use axum::{
    Json,
    body::Bytes,
    extract::{
        Path, State,
        rejection::{BytesRejection, PathRejection},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Engine, document, invalid, schedule::stored_sale};
use crate::{
    api::{
        extract,
        problem::{Code, Problem},
    },
    engine::{DrawRefused, Drawn},
    ids::SaleId,
    lottery::{BEACON_MAX, Seed},
    sale::FieldProblem,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reveal {
    seed: String,
    #[serde(default)]
    beacon: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    round: u32,
    winners: u64,
}

pub(super) async fn draw(
    State(engine): Engine,
    sale: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let sale = stored_sale(&engine, &extract::path(sale)?).await?;
    let reveal: Reveal = document(body)?;
    let seed = Seed::from_hex(&reveal.seed).ok_or_else(|| {
        // The value is a secret, even one that is misspelt.
        bad("seed", "…", "64 hexadecimal digits")
    })?;
    let is_text = reveal.beacon.bytes().all(|byte| byte.is_ascii_graphic());
    if reveal.beacon.len() > BEACON_MAX || !is_text {
        let allowed = format!("at most {BEACON_MAX} visible ASCII characters");
        return Err(bad("beacon", &reveal.beacon, &allowed));
    }
    let drawn = engine.draw(&sale, &seed, &reveal.beacon).await?;
    answer(&sale.id, drawn)
}

pub(super) async fn call_reserve(
    State(engine): Engine,
    sale: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let sale = stored_sale(&engine, &extract::path(sale)?).await?;
    let call: Call = document(body)?;
    let drawn = engine.draw_again(&sale, call.round, call.winners).await?;
    answer(&sale.id, drawn)
}

fn answer(sale: &SaleId, drawn: Drawn) -> Result<Json<Value>, Problem> {
    let refused = match drawn {
        Ok(round) => {
            let mut document = json!(round);
            document["sale"] = json!(sale);
            return Ok(Json(document));
        }
        Err(refused) => refused,
    };
    Err(match refused {
        DrawRefused::NoLottery => Problem::new(Code::NoLottery, "this sale has no lottery"),
        DrawRefused::NotPublished => Problem::new(Code::NotEditable, "the sale is not published"),
        DrawRefused::StillOpen { closes_at_ms } => Problem::new(
            Code::NotDrawnYet,
            format!("entries are taken until {closes_at_ms} (unix milliseconds)"),
        ),
        DrawRefused::WrongSeed => bad("seed", "…", "the seed of the published commitment"),
        DrawRefused::Beacon { is_announced: true } => {
            bad("beacon", "", "the beacon that was announced")
        }
        DrawRefused::Beacon {
            is_announced: false,
        } => bad("beacon", "…", "empty: none was announced"),
        DrawRefused::Sealed => Problem::new(
            Code::VersionConflict,
            "the lottery was sealed with another beacon",
        ),
        DrawRefused::NotDrawn => Problem::new(Code::NotDrawnYet, "draw the lottery first"),
        DrawRefused::Round { next } => bad("round", "", &format!("{next}, which is the next one")),
        DrawRefused::Winners { most } => {
            let allowed = format!("from 1 to {most}: entries, units and winners that are left");
            bad("winners", "", &allowed)
        }
    })
}

fn bad(field: &str, value: &str, allowed: &str) -> Problem {
    invalid(vec![FieldProblem {
        field: field.to_owned(),
        value: value.to_owned(),
        allowed: allowed.to_owned(),
    }])
}
