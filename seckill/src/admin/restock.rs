//! Adding units to a sale that is on.

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
use stock::Gate;

use super::{Engine, document, invalid, sale_of};
use crate::{
    api::{
        extract,
        problem::{Code, Problem},
    },
    ids::SkuId,
    ledger::{Restock, Restocked},
    sale::FieldProblem,
    units::MAX_UNITS,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RestockBody {
    sku: String,
    units: i128,
    id: String,
}

pub(super) async fn restock(
    State(engine): Engine,
    sale: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let (id, sale) = sale_of(&engine, &extract::path(sale)?)?;
    if sale.gate == Gate::Closed {
        return Err(Problem::new(
            Code::Ended,
            "a closed sale stays closed; create a new one",
        ));
    }
    let body: RestockBody = document(body)?;
    let mut problems = Vec::new();
    let mut bad = |field: &str, value: String, allowed: String| {
        problems.push(FieldProblem {
            field: field.to_owned(),
            value,
            allowed,
        });
    };
    if !(1..=i128::from(MAX_UNITS)).contains(&body.units) {
        bad(
            "units",
            body.units.to_string(),
            format!("a whole number from 1 to {MAX_UNITS}"),
        );
    }
    // The id becomes a key of the store, so it obeys the rules of a sku's name.
    if SkuId::try_new(&body.id).is_err() {
        bad(
            "id",
            body.id.clone(),
            "1..=64 characters of A-Z a-z 0-9 - _ .".to_owned(),
        );
    }
    let sku = SkuId::try_new(&body.sku).ok();
    let (true, Some(sku)) = (problems.is_empty(), sku) else {
        return Err(match problems.is_empty() {
            true => Problem::new(
                Code::NoSuchSku,
                format!("sku: {:?} is not on sale here", body.sku),
            ),
            false => invalid(problems),
        });
    };
    let restock = Restock {
        sku,
        id: body.id,
        units: body.units as u64,
    };
    match engine.restock(&sale, &restock).await? {
        outcome @ (Restocked::Added | Restocked::Repeated) => Ok(Json(
            json!({"sale": id, "sku": restock.sku, "id": restock.id, "units": restock.units,
                "added": outcome == Restocked::Added}),
        )),
        Restocked::Conflict => Err(Problem::new(
            Code::KeyReused,
            "this restock id was used for another number of units",
        )),
        Restocked::UnknownSku => Err(Problem::new(
            Code::NoSuchSku,
            format!("sku: {} is not on sale here", restock.sku),
        )),
        Restocked::TooMany { rest } => Err(invalid(vec![FieldProblem {
            field: "units".to_owned(),
            value: restock.units.to_string(),
            allowed: format!("at most {rest}, the rest of what one sku may ever have"),
        }])),
    }
}
