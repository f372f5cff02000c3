//! Buyers' names and request ids, one behind the other in shared pages: a text costs its bytes and one more.

use std::sync::Arc;

/// Bytes of a page. A text does not cross pages, so at most 255 bytes of each are wasted.
pub(crate) const PAGE: usize = 1 << 16;

/// All texts of a segment. Cloning shares all pages.
#[derive(Clone, Default)]
pub(crate) struct Texts {
    pages: Vec<Arc<Vec<u8>>>,
}

impl Texts {
    pub(crate) fn pages(&self) -> &[Arc<Vec<u8>>] {
        &self.pages
    }

    /// Takes a page over as it was read from a snapshot.
    pub(crate) fn push_page(&mut self, page: Vec<u8>) {
        self.pages.push(Arc::new(page));
    }

    /// Stores a text of at most 255 bytes (ids are checked to be no longer) and answers its place.
    pub(crate) fn push(&mut self, text: &str) -> u64 {
        let length = u8::try_from(text.len()).expect("ids have at most 255 bytes");
        let fits = |page: &Arc<Vec<u8>>| page.len() + 1 + text.len() <= PAGE;
        if !self.pages.last().is_some_and(fits) {
            self.pages.push(Arc::default());
        }
        let number = self.pages.len() - 1;
        let page = &mut self.pages[number];
        if Arc::get_mut(page).is_none() {
            let mut copy = Vec::with_capacity((page.len() + 256).next_power_of_two().min(PAGE));
            copy.extend_from_slice(page);
            *page = Arc::new(copy);
        }
        let page = Arc::get_mut(page).expect("just made the only reference");
        let at = page.len();
        page.push(length);
        page.extend_from_slice(text.as_bytes());
        (number * PAGE + at) as u64
    }

    /// The text at a place that [`Texts::push`] answered; `None` where there is none.
    pub(crate) fn get(&self, place: u64) -> Option<&str> {
        let place = usize::try_from(place).ok()?;
        let page = self.pages.get(place / PAGE)?;
        let (length, rest) = page.get(place % PAGE..)?.split_first()?;
        std::str::from_utf8(rest.get(..usize::from(*length))?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_found_again_over_page_borders_and_shared_copies() {
        let mut texts = Texts::default();
        let text = |n: usize| "x".repeat(n % 256);
        let places: Vec<u64> = (0..2_000).map(|n| texts.push(&text(n))).collect();
        let shared = texts.clone();
        let last = texts.push("new");
        assert!(texts.pages.len() > 2);
        for (n, place) in places.iter().enumerate() {
            assert_eq!(texts.get(*place), Some(text(n).as_str()));
            assert_eq!(shared.get(*place), Some(text(n).as_str()));
        }
        assert_eq!((texts.get(last), shared.get(last)), (Some("new"), None));
        assert_eq!(texts.get(u64::MAX), None);
    }
}
