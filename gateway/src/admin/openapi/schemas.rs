//! The shapes of requests and answers. A field's type is written in a word: `string`, `int`, `bool`, `object`, the name of another shape,
//! `texts` for an object of strings, `[…]` for a list, `a|b` for one of several words, `…?` behind the type for null, `?` behind the name for a field that may be missing.

use serde_json::{Map, Value, json};

type Shape = (&'static str, &'static [(&'static str, &'static str)]);

#[rustfmt::skip]
const SHAPES: &[Shape] = &[
    ("Problem", &[("type", "string"), ("title", "string"), ("status", "int"), ("code", "string"), ("detail", "string"),
        ("problems?", "[FieldProblem]"), ("sku?", "string")]),
    ("FieldProblem", &[("field", "string"), ("value", "string"), ("allowed", "string")]),
    ("Purchase", &[("sku", "string"), ("quantity?", "int"), ("metadata?", "texts")]),
    ("CartRequest", &[("lines", "[CartLine]"), ("metadata?", "texts")]),
    ("CartLine", &[("sku", "string"), ("quantity?", "int")]),
    ("Order", &[("id", "string"), ("object", "order"), ("sale", "string"), ("sku", "string"), ("buyer", "string"),
        ("quantity", "int"), ("amount_minor?", "int"), ("currency?", "string"),
        ("status", "reserved|paying|paid|released|refused"), ("created_at_ms", "int"), ("pay_by_ms", "int"),
        ("metadata?", "texts")]),
    ("Cart", &[("object", "cart"), ("sale", "string"), ("buyer", "string"), ("request_id", "string"),
        ("amount_minor", "int?"), ("currency", "string"), ("orders", "[Order]")]),
    ("NotKnownYet", &[("object", "order|cart"), ("status", "unknown"), ("poll", "string"), ("id?", "string")]),
    ("PublicSale", &[("id", "string"), ("object", "sale"), ("state", "scheduled|open|paused|frozen|ended"), ("now_ms", "int"),
        ("starts_at_ms", "int"), ("ends_at_ms", "int"), ("pay_within_ms", "int"), ("buyer_limit", "int"),
        ("order_limit", "int?"), ("admission", "open|allow_list|token|lottery"), ("currency", "string"), ("carts", "bool"),
        ("skus", "[PublicSku]")]),
    ("PublicSku", &[("sku", "string"), ("price_minor", "int"), ("available", "int?")]),
    ("Entry", &[("object", "entry"), ("sale", "string"), ("buyer", "string"), ("entry", "string"), ("nonce", "string"),
        ("created_at_ms", "int"), ("status", "entered|drawn|not_drawn")]),
    ("Draw", &[("object", "draw"), ("state", "open|closed|drawn"), ("sale", "string"), ("commitment", "string"), ("seed", "string?"),
        ("beacon_source", "string?"), ("beacon", "string?"), ("entries", "int?"), ("root", "string?"), ("rounds", "[Round]"),
        ("closes_at_ms", "int"), ("winners", "int")]),
    ("Round", &[("round", "int"), ("first", "int"), ("count", "int"), ("at_ms", "int"), ("sale?", "string")]),
    ("Entries", &[("entries", "[string]"), ("next", "string?")]),
    ("Slots", &[("object", "slots"), ("sale", "string"), ("now_ms", "int"), ("slots", "[Slot]")]),
    ("Slot", &[("sku", "string"), ("store", "string"), ("starts_at_ms", "int"), ("ends_at_ms", "int"), ("capacity", "int"),
        ("free", "int?"), ("cancel_until_ms", "int")]),
    ("CheckinCode", &[("object", "checkin_code"), ("order", "string"), ("code", "string")]),
    ("NewSale", &[("id", "string"), ("starts_at_ms", "int"), ("ends_at_ms", "int"), ("pay_within", "string"), ("buyer_limit", "int"),
        ("currency", "string"), ("skus?", "[NewSku]"), ("slots?", "NewSlots"), ("segments?", "int"), ("carts?", "bool"),
        ("durability?", "fast|replicated|durable"), ("draft?", "bool"), ("order_limit?", "int"),
        ("admission?", "open|allow_list|token|lottery"), ("lottery?", "NewLottery")]),
    ("SaleChange", &[("starts_at_ms?", "int"), ("ends_at_ms?", "int"), ("pay_within?", "string"), ("buyer_limit?", "int"),
        ("currency?", "string"), ("skus?", "[NewSku]"), ("slots?", "NewSlots"), ("segments?", "int"), ("carts?", "bool"),
        ("durability?", "fast|replicated|durable"), ("order_limit?", "int"), ("admission?", "open|allow_list|token|lottery"),
        ("lottery?", "NewLottery")]),
    ("NewSku", &[("sku", "string"), ("stock", "int"), ("price_minor", "int")]),
    ("NewLottery", &[("closes_at_ms", "int"), ("winners", "int"), ("commitment", "string"), ("beacon_source?", "string")]),
    ("NewSlots", &[("stores", "[string]"), ("from", "string"), ("days", "int"), ("opens", "string"), ("closes", "string"),
        ("slot", "string"), ("utc_offset?", "string"), ("time_zone?", "string"), ("capacity", "int"), ("price_minor?", "int"), ("cancel_before?", "string"),
        ("grace?", "string")]),
    ("Sale", &[("id", "string"), ("starts_at_ms", "int"), ("ends_at_ms", "int"), ("pay_within_ms", "int"), ("buyer_limit", "int"),
        ("currency", "string"), ("skus", "[NewSku]"), ("gate", "open|paused|closed|frozen"), ("segments", "int"), ("carts", "bool"),
        ("durability", "string?"), ("stage", "draft|published"), ("version", "int"), ("order_limit", "int?"),
        ("admission", "open|allow_list|token|lottery"), ("lottery", "object?"), ("slots", "object?"), ("now_ms", "int"),
        ("state", "draft|scheduled|open|paused|frozen|ended"), ("warm", "bool")]),
    ("Sales", &[("sales", "[Sale]")]),
    ("ListChange", &[("add?", "[string]"), ("remove?", "[string]")]),
    ("ListSize", &[("sale", "string"), ("list", "string"), ("version", "int"), ("entries", "int"), ("added?", "int"), ("removed?", "int")]),
    ("DrawRequest", &[("seed", "string"), ("beacon?", "string")]),
    ("RoundRequest", &[("round", "int"), ("winners", "int")]),
    ("SlotReport", &[("sale", "string"), ("slots", "[SlotCounts]")]),
    ("SlotCounts", &[("sku", "string"), ("store", "string"), ("starts_at_ms", "int"), ("capacity", "int"), ("booked", "int"),
        ("checked_in", "int"), ("cancelled", "int"), ("no_show", "int")]),
    ("CheckIn", &[("order", "string"), ("code", "string")]),
    ("CheckedIn", &[("checked_in", "bool"), ("order", "Order")]),
    ("TokenRequest", &[("buyers", "[string]"), ("sku?", "string"), ("max_quantity?", "int"), ("expires_in?", "string"), ("not_before_ms?", "int")]),
    ("Tokens", &[("sale", "string"), ("sku", "string?"), ("max_quantity", "int?"), ("expires_at_ms", "int"), ("tokens", "[Token]")]),
    ("Token", &[("id", "string"), ("buyer", "string"), ("token", "string")]),
    ("Restock", &[("sku", "string"), ("units", "int"), ("id", "string")]),
    ("Pending", &[("pending", "string"), ("reason", "string")]),
    ("Restocked", &[("sale", "string"), ("sku", "string"), ("id", "string"), ("units", "int"), ("added", "bool")]),
    ("SaleReport", &[("sale", "string"), ("state", "string"), ("skus", "[SkuReport]"), ("accepted", "int"), ("settled", "int"),
        ("paid", "int"), ("returned", "int"), ("refused", "int"), ("dead_letters", "int"), ("queue_depth", "int"),
        ("outbox_pending", "int")]),
    ("SkuReport", &[("sku", "string"), ("stock", "int"), ("restocked", "int"), ("segments", "int"), ("in_transfer", "int"),
        ("available", "int"), ("reserved", "int"), ("sold", "int"), ("ledger_sold", "int?")]),
    ("OrderRows", &[("orders", "[object]"), ("next", "string?")]),
    ("Reconciliation", &[("sale", "string"), ("ok", "bool"), ("findings", "[Finding]"), ("repairs?", "Repairs")]),
    ("Repairs", &[("settled_again", "[string]"), ("refused", "[string]"), ("told_again", "[string]"), ("frozen", "[object]")]),
    ("Books", &[("ok", "bool"), ("findings", "[Finding]")]),
    ("Finding", &[("invariant", "string"), ("detail", "string")]),
    ("DeadEvents", &[("sale", "string"), ("dead_events", "[DeadEvent]"), ("next", "string?")]),
    ("DeadEvent", &[("id", "string"), ("order", "string"), ("kind", "settled|refused|paid|released"), ("created_at_ms", "int"),
        ("attempts", "int"), ("dead_at_ms", "int"), ("reason", "string?")]),
    ("EventsDue", &[("sale", "string"), ("due", "int")]),
    ("EventDue", &[("id", "string"), ("due", "int")]),
    ("DeadLetters", &[("sale", "string"), ("dead_letters", "[DeadLetter]"), ("next", "string?")]),
    ("DeadLetter", &[("id", "string"), ("sku", "string"), ("segment", "int"), ("order", "object?"), ("reason", "string"), ("raw", "string?"),
        ("at_ms", "int"), ("replays", "int"), ("outcome", "string?")]),
    ("ReplayRequest", &[("or_refuse?", "bool")]),
    ("Replays", &[("sale", "string"), ("closed", "int"), ("replays", "[Replay]"), ("next", "string?")]),
    ("Replay", &[("id", "string"), ("outcome", "string"), ("closed", "bool"), ("detail", "string")]),
    ("BackupRequest", &[("to", "string")]),
    ("Backup", &[("state", "idle|running|done|failed"), ("to?", "string"), ("bytes_done?", "int"), ("bytes_total?", "int"),
        ("manifest?", "object"), ("error?", "string")]),
    ("Reloaded", &[("ok", "bool"), ("generation", "int"), ("warnings", "[string]")]),
    ("Ready", &[("ready", "bool"), ("missing", "[string]"), ("parts", "[Part]")]),
    ("Part", &[("name", "string"), ("state", "ready|starting|failing"), ("counts", "bool"), ("reason?", "string")]),
];

/// `components.schemas`.
pub(super) fn document() -> Value {
    let shapes = SHAPES.iter().map(|(name, fields)| {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for (field, kind) in *fields {
            let name = field.trim_end_matches('?');
            properties.insert(name.to_owned(), of(kind));
            if !field.ends_with('?') {
                required.push(name);
            }
        }
        let shape = json!({ "type": "object", "properties": properties, "required": required });
        ((*name).to_owned(), shape)
    });
    Value::Object(shapes.collect())
}

/// The schema of a type's word.
pub(super) fn of(kind: &str) -> Value {
    if let Some(kind) = kind.strip_suffix('?') {
        return json!({ "anyOf": [of(kind), { "type": "null" }] });
    }
    if let Some(item) = kind
        .strip_prefix('[')
        .and_then(|kind| kind.strip_suffix(']'))
    {
        return json!({ "type": "array", "items": of(item) });
    }
    match kind {
        "string" => json!({ "type": "string" }),
        "int" => json!({ "type": "integer", "format": "int64" }),
        "bool" => json!({ "type": "boolean" }),
        "object" => json!({ "type": "object" }),
        "texts" => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        name if SHAPES.iter().any(|(shape, _)| *shape == name) => {
            json!({ "$ref": format!("#/components/schemas/{name}") })
        }
        words => json!({ "type": "string", "enum": words.split('|').collect::<Vec<_>>() }),
    }
}
