//! Buyers' names, request ids and metadata, one behind the other in shared pages: a text costs its bytes and one more, metadata its
//! bytes and two more.

use std::sync::Arc;

/// Bytes of a page. A text does not cross pages, so what is wasted of each is less than the next text.
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
        let (page, place) = self.room(1 + text.len());
        put(page, text);
        place
    }

    /// Stores a text, and right behind it a longer one, of at most 65535 bytes: [`Texts::behind`] finds it by the same place.
    pub(crate) fn push_with(&mut self, text: &str, longer: &str) -> u64 {
        let length = u16::try_from(longer.len()).expect("metadata is bounded far below");
        let (page, place) = self.room(1 + text.len() + 2 + longer.len());
        put(page, text);
        page.extend_from_slice(&length.to_le_bytes());
        page.extend_from_slice(longer.as_bytes());
        place
    }

    /// A page with room for so many bytes, and the place of the first of them.
    fn room(&mut self, bytes: usize) -> (&mut Vec<u8>, u64) {
        let fits = |page: &Arc<Vec<u8>>| page.len() + bytes <= PAGE;
        if !self.pages.last().is_some_and(fits) {
            self.pages.push(Arc::default());
        }
        let number = self.pages.len() - 1;
        let page = &mut self.pages[number];
        if Arc::get_mut(page).is_none() {
            let mut copy = Vec::with_capacity((page.len() + bytes).next_power_of_two().min(PAGE));
            copy.extend_from_slice(page);
            *page = Arc::new(copy);
        }
        let page = Arc::get_mut(page).expect("just made the only reference");
        let at = page.len();
        (page, (number * PAGE + at) as u64)
    }

    /// The text at a place that [`Texts::push`] answered; `None` where there is none.
    pub(crate) fn get(&self, place: u64) -> Option<&str> {
        std::str::from_utf8(self.at(place)?.0).ok()
    }

    /// The text behind the one at a place that [`Texts::push_with`] answered; `None` where there is none.
    pub(crate) fn behind(&self, place: u64) -> Option<&str> {
        let (length, rest) = self.at(place)?.1.split_first_chunk()?;
        let length = u16::from_le_bytes(*length);
        std::str::from_utf8(rest.get(..usize::from(length))?).ok()
    }

    /// The bytes of the text at a place, and those behind it in its page.
    fn at(&self, place: u64) -> Option<(&[u8], &[u8])> {
        let place = usize::try_from(place).ok()?;
        let page = self.pages.get(place / PAGE)?;
        let (length, rest) = page.get(place % PAGE..)?.split_first()?;
        rest.split_at_checked(usize::from(*length))
    }
}

fn put(page: &mut Vec<u8>, text: &str) {
    page.push(u8::try_from(text.len()).expect("ids have at most 255 bytes"));
    page.extend_from_slice(text.as_bytes());
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

    #[test]
    fn a_text_and_what_is_behind_it_stay_together_over_page_borders() {
        let mut texts = Texts::default();
        let (text, longer) = (
            |n: usize| "t".repeat(n % 256),
            |n: usize| "m".repeat(n % 2049),
        );
        let places: Vec<u64> = (0..2_000)
            .map(|n| texts.push_with(&text(n), &longer(n)))
            .collect();
        let shared = texts.clone();
        let last = texts.push("last");
        assert!(texts.pages.len() > 4 && texts.pages.iter().all(|page| page.len() <= PAGE));
        for (n, &place) in places.iter().enumerate() {
            assert_eq!(texts.get(place), Some(text(n).as_str()));
            assert_eq!(shared.behind(place), Some(longer(n).as_str()));
        }
        assert_eq!((texts.behind(last), texts.behind(u64::MAX)), (None, None));
    }
}
