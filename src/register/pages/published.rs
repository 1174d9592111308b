use super::Pages;
use crate::sync::Mutex;

/// Pages of all layers of one registrar, which its instance publishes the URLs of.
#[derive(Debug, Default)]
pub(in crate::register) struct PublishedPages(Mutex<Vec<Pages>>);

/// Number of a layer within its [`PublishedPages`].
#[derive(Clone, Copy, Debug)]
pub(in crate::register) struct Slot(usize);

impl PublishedPages {
    /// Adds the pages of a further layer.
    pub(in crate::register) fn add(&self, pages: Pages) -> Slot {
        let mut layers = self.0.lock();
        layers.push(pages);
        Slot(layers.len() - 1)
    }

    /// Replaces the pages of a layer.
    pub(in crate::register) fn replace(&self, slot: Slot, pages: Pages) {
        self.0.lock()[slot.0] = pages;
    }

    /// Returns the path of the health page, and that of the info page, of the first layer that has
    /// them.
    pub(in crate::register) fn paths(&self) -> (Option<String>, Option<String>) {
        let layers = self.0.lock();
        let first = |path: fn(&Pages) -> Option<&str>| layers.iter().find_map(path).map(str::to_owned);
        (first(Pages::health_path), first(Pages::info_path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_layer_with_a_page_is_published() {
        let published = PublishedPages::default();
        assert_eq!(published.paths(), (None, None));
        let pages = Pages::default();
        let first = published.add(pages.clone());
        let second = published.add(pages.with_health(Some("/up")));
        assert_eq!(published.paths(), (Some("/actuator/health".into()), Some("/actuator/info".into())));
        published.replace(first, pages.with_health(None));
        assert_eq!(published.paths(), (Some("/up".into()), Some("/actuator/info".into())));
        published.replace(first, pages.without_any());
        published.replace(second, pages.without_any());
        assert_eq!(published.paths(), (None, None));
    }
}
