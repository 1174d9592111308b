use super::Pages;
use crate::sync::Mutex;

/// Pages of all layers of one registrar, which its instance publishes the URLs of.
#[derive(Debug, Default)]
pub(in crate::register) struct PublishedPages(Mutex<Vec<Entry>>);

/// Paths of pages, with the number of layers that have them. A server may create a layer for each
/// connection.
#[derive(Debug)]
struct Entry {
    health: Option<Box<str>>,
    info: Option<Box<str>>,
    layers: usize,
}

impl Entry {
    fn of(pages: &Pages) -> Self {
        let path = |path: Option<&str>| path.map(Into::into);
        Self { health: path(pages.health_path()), info: path(pages.info_path()), layers: 1 }
    }

    fn has_paths_of(&self, pages: &Pages) -> bool {
        (self.health.as_deref(), self.info.as_deref()) == (pages.health_path(), pages.info_path())
    }
}

impl PublishedPages {
    /// Adds the pages of a further layer.
    pub(in crate::register) fn add(&self, pages: &Pages) {
        add(&mut self.0.lock(), pages);
    }

    /// Replaces the pages of a layer.
    pub(in crate::register) fn replace(&self, old: &Pages, new: &Pages) {
        let mut entries = self.0.lock();
        let is_known = entries.iter().any(|entry| entry.has_paths_of(new));
        match entries.iter().position(|entry| entry.has_paths_of(old)) {
            Some(position) if entries[position].layers > 1 => entries[position].layers -= 1,
            // The layer keeps its place.
            Some(position) if !is_known => {
                entries[position] = Entry::of(new);
                return;
            }
            Some(position) => drop(entries.remove(position)),
            // A clone of the layer has replaced them.
            None => {}
        }
        add(&mut entries, new);
    }

    /// Returns the path of the health page, and that of the info page, of the first layer that has
    /// them.
    pub(in crate::register) fn paths(&self) -> (Option<String>, Option<String>) {
        let entries = self.0.lock();
        let first = |path: fn(&Entry) -> Option<&str>| entries.iter().find_map(path).map(str::to_owned);
        (first(|entry| entry.health.as_deref()), first(|entry| entry.info.as_deref()))
    }
}

fn add(entries: &mut Vec<Entry>, pages: &Pages) {
    match entries.iter_mut().find(|entry| entry.has_paths_of(pages)) {
        Some(entry) => entry.layers += 1,
        None => entries.push(Entry::of(pages)),
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
        let (up, without_health) = (pages.with_health(Some("/up")), pages.with_health(None));
        published.add(&pages);
        published.add(&up);
        assert_eq!(published.paths(), (Some("/actuator/health".into()), Some("/actuator/info".into())));
        published.replace(&pages, &without_health);
        assert_eq!(published.paths(), (Some("/up".into()), Some("/actuator/info".into())));
        published.replace(&without_health, &pages.without_any());
        published.replace(&up, &pages.without_any());
        assert_eq!(published.paths(), (None, None));
    }

    #[test]
    fn layers_with_equal_pages_share_an_entry() {
        let published = PublishedPages::default();
        let pages = Pages::default();
        let (up, none) = (pages.with_health(Some("/up")), pages.without_any());
        for _ in 0..1000 {
            published.add(&pages);
            published.replace(&pages, &up);
            published.add(&pages.with_details(true));
        }
        assert_eq!(published.0.lock().len(), 2);
        for _ in 0..999 {
            published.replace(&up, &none);
        }
        assert_eq!(published.paths().0.as_deref(), Some("/up"), "one layer still has it");
        published.replace(&up, &none);
        published.replace(&up, &none);
        assert_eq!(published.paths().0.as_deref(), Some("/actuator/health"));
    }
}
