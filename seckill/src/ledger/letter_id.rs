//! The name of a dead letter, as operators write it: in paths, on the command line, and as the cursor of a page.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use crate::ids::{SaleId, SegmentId, SkuId};

/// Which letter of a sale: sku, segment and position, as in `shoe:0:1700000000000-3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterId {
    /// The sku.
    pub sku: SkuId,
    /// The part of its stock.
    pub segment: u16,
    /// The place in the queue.
    pub position: String,
}

impl LetterId {
    /// The segment whose queue the entry was in.
    pub fn segment_of(&self, sale: &SaleId) -> SegmentId {
        SegmentId {
            sale: sale.clone(),
            sku: self.sku.clone(),
            index: self.segment,
        }
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.sku, self.segment, self.position)
    }
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':');
        let mut next = || parts.next().unwrap_or_default();
        let (sku, segment, position) = (next().parse(), next().parse(), next());
        match (sku, segment) {
            (Ok(sku), Ok(segment)) if !position.is_empty() => Ok(Self {
                sku,
                segment,
                position: position.to_owned(),
            }),
            _ => Err(format!(
                "dead letter {text:?}: must be SKU:SEGMENT:POSITION, as in shoe:0:17-0"
            )),
        }
    }
}

impl Serialize for LetterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_letter_survives_its_text_form() {
        for text in ["shoe:0:17-0", "a.b-c:65535:ord_x:y"] {
            assert_eq!(text.parse::<LetterId>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "shoe",
            "shoe:0",
            "shoe:0:",
            "shoe:x:1",
            "shoe:65536:1",
            ":0:1",
        ] {
            assert!(bad.parse::<LetterId>().is_err(), "{bad:?}");
        }
    }
}
