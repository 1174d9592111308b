//! The page for operators in headless Chromium. Without Chromium the tests say so and pass.
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tower_eureka::{EurekaServer, Instance};

use crate::browser::{Browser, Page, chromium};

const PAYLOADS: &str = include_str!("../../src/server/page/payloads.txt");

struct Registry {
    server: EurekaServer,
    url: String,
    _serving: tokio::task::JoinSet<()>,
}

impl Registry {
    async fn start() -> Self {
        let server = EurekaServer::builder().environment("prod").data_center("rack-7").build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let app = server.service("/eureka").with_probes().with_page();
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(server.listener(listener).serve(app, std::future::pending()));
        Self { server, url, _serving: serving }
    }

    fn register(&self, app: &str, number: usize) {
        let instance = Instance::builder(app)
            .id(format!("pod-{number:04}:{}:8080", app.to_lowercase()))
            .host_name(format!("pod-{number:04}.example"))
            .ip_addr(format!("10.0.{}.{}", number / 250, number % 250 + 1))
            .port(8080)
            .metadata("zone", ["eu-1a", "eu-1b", "eu-1c"][number % 3])
            .metadata("version", "2.4.1")
            .build()
            .unwrap();
        self.server.register(instance).unwrap();
    }

    /// Registers this number of instances, in applications of different sizes.
    fn fill(&self, instances: usize) {
        for number in 0..instances {
            let app = format!("SERVICE-{:02}", (number * number / 7) % 40);
            self.register(&app, number);
        }
    }
}

/// Starts a browser, or says that there is none.
async fn browser() -> Option<Browser> {
    let Some(program) = chromium() else {
        eprintln!("!!! CHROMIUM IS NOT INSTALLED: the page is not tried in a browser (apt-get install chromium)");
        return None;
    };
    Some(Browser::start(program).await)
}

/// Returns the expression for the number of visible elements.
fn number_of(selector: &str) -> String {
    format!("[...document.querySelectorAll({selector:?})].filter(e => e.checkVisibility()).length")
}

async fn count(page: &mut Page<'_>, selector: &str) -> usize {
    page.evaluate(&number_of(selector)).await.as_u64().unwrap() as usize
}

/// Waits until the script of the page is connected.
async fn live(page: &mut Page<'_>) {
    page.wait("document.getElementById('live').textContent === 'Live'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn script_pauses_after_the_end_of_its_stream_and_then_shows_what_it_missed() {
    let Some(mut browser) = browser().await else { return };
    let registry = Registry::start().await;
    let mut page = browser.page().await;
    page.open(&registry.url).await;
    live(&mut page).await;
    // The pause is the longest one that the server asks for.
    let ends = |ms: usize| {
        format!(
            "(() => {{ Math.random = () => 1;
             source.dispatchEvent(new MessageEvent('end', {{ data: '{{\"reload\":{ms}}}' }})); }})()"
        )
    };
    page.evaluate(&ends(3_600_000)).await;
    assert_eq!(page.evaluate("source === null").await, json!(true), "the stream is closed");
    registry.register("ORDERS", 1);
    assert_eq!(count(&mut page, "[data-key=ORDERS]").await, 0);
    page.evaluate("connect()").await;
    page.wait("document.querySelector('[data-key=ORDERS] tbody tr')").await;
    live(&mut page).await;
    // After a short pause it connects by itself.
    page.evaluate(&ends(1)).await;
    page.wait("source !== null && source.readyState === EventSource.OPEN").await;
    registry.register("CART", 1);
    page.wait("document.querySelector('[data-key=CART] tbody tr')").await;
    page.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_thousand_instances_are_shown_filtered_and_updated_live() {
    let Some(mut browser) = browser().await else { return };
    let registry = Registry::start().await;
    registry.fill(3_000);
    let mut page = browser.page().await;
    page.open(&registry.url).await;
    live(&mut page).await;
    assert_eq!(count(&mut page, ".app tbody tr").await, 3_000);
    let script = page.metric("ScriptDuration").await;
    eprintln!("script until the page is live: {:.0} ms", script * 1e3);

    // Another program may have the processor at any moment, so the best of some tries counts.
    let mut best = f64::INFINITY;
    for text in ["pod-00", "pod-000 eu-1a", "service-07", "nothing", "pod-0007"] {
        let script = format!(
            "(() => {{ const q = document.querySelector('[name=q]'); q.value = {text:?};
             q.dispatchEvent(new Event('input')); return performance.getEntriesByName('filter').at(-1).duration; }})()"
        );
        best = best.min(page.evaluate(&script).await.as_f64().unwrap());
    }
    eprintln!("one search in 3,000 instances: {best:.1} ms");
    assert_eq!(count(&mut page, ".app tbody tr").await, 1);
    assert!(page.evaluate("location.search").await.as_str().unwrap().contains("q=pod-0007"));

    // The list shows the host of this instance, and not its address.
    let search = "(() => { const q = document.querySelector('[name=q]'); q.value = '10.0.11.249';
        q.dispatchEvent(new Event('input')); })()";
    page.evaluate(search).await;
    assert_eq!(count(&mut page, ".app tbody tr").await, 1);
    page.evaluate(&search.replace("10.0.11.249", "pod-0007")).await;

    // A change that matches the search, and one that does not.
    let mut best = Duration::MAX;
    for app in ["LIVE-A", "LIVE-B", "LIVE-C"] {
        let began = Instant::now();
        registry.register(app, 7);
        registry.register(app, 8);
        page.wait(&format!("document.querySelector('[data-key={app:?}] tbody tr:not([hidden])')")).await;
        best = best.min(began.elapsed());
        assert_eq!(count(&mut page, &format!("[data-key={app:?}] tbody tr")).await, 1);
    }
    eprintln!("change visible after {best:?}");
    let id = "pod-0007:live-a:8080";
    registry.server.set_override("LIVE-A", id, tower_eureka::model::InstanceStatus::OutOfService).unwrap();
    page.wait(
        "document.querySelector('[data-key=LIVE-A] tbody tr:not([hidden])').textContent.includes('OUT_OF_SERVICE')",
    )
    .await;
    for (apps, shown) in [("['LIVE-A']", true), ("[]", false), ("true", true)] {
        let script = format!(
            "(() => {{ apply({{kept: {{apps: {apps}, marked: true}}}});
             return document.querySelector('[data-key=LIVE-A] h3 .kept').checkVisibility(); }})()"
        );
        assert_eq!(page.evaluate(&script).await, shown, "{apps}");
    }
    page.wait("inView.has(document.querySelector('[data-key=LIVE-A]'))").await;
    // The server alone says that a lease is expired.
    for (left, then, shown) in [(5_000, 6_000, "0 s"), (-5_000, 1_000, "expired 6 s ago, kept")] {
        let script = format!(
            "(() => {{ const row = document.querySelector('[data-key=LIVE-A] tbody tr:not([hidden])');
             const facts = rowOf(row); setFacts(facts, null, {left}); facts.endsAt -= {then}; showTimes();
             return row.cells[6].textContent; }})()"
        );
        assert_eq!(page.evaluate(&script).await, shown);
    }
    registry.server.cancel("LIVE-A", id).unwrap();
    page.wait("!document.querySelector('[data-key=LIVE-A] tbody tr:not([hidden])')").await;
    page.assert_own_requests_only(&registry.url);
    page.assert_no_errors();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_values_run_nothing_and_load_nothing() {
    let Some(mut browser) = browser().await else { return };
    let registry = Registry::start().await;
    let mut page = browser.page().await;
    page.open(&registry.url).await;
    live(&mut page).await;
    // Half of them are in the page from the start, and half arrive as changes.
    for payload in PAYLOADS.lines() {
        registry.server.register(hostile(payload)).unwrap();
    }
    let payloads = PAYLOADS.lines().count();
    page.wait(&format!("document.querySelectorAll('.app tbody tr').length === {payloads}")).await;
    page.open(&registry.url).await;
    live(&mut page).await;
    assert_eq!(count(&mut page, ".app tbody tr").await, payloads);
    let shown = "[...document.querySelectorAll('.app tbody th a')].map(a => a.textContent)";
    let shown = page.evaluate(shown).await;
    assert!(shown.as_array().unwrap().contains(&json!("<img src=x onerror=alert(1)>")), "{shown}");
    let links = page.evaluate("[...document.querySelectorAll('.app tbody th a')].map(a => a.href)").await;
    for link in links.as_array().unwrap() {
        page.open(link.as_str().unwrap()).await;
        assert!(page.evaluate("document.querySelector('#why') !== null").await == true, "{link}");
    }
    page.open(&format!("{}lastn", registry.url)).await;
    assert_eq!(count(&mut page, "tbody tr").await, payloads);
    page.assert_own_requests_only(&registry.url);
    page.assert_no_errors();
    assert_eq!(page.dialogs(), 0, "an alert was shown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_acts_with_the_keyboard_and_reads_without_a_script() {
    let Some(mut browser) = browser().await else { return };
    let registry = Registry::start().await;
    for number in 0..3 {
        registry.register("ORDERS", number);
    }
    let id = "pod-0001:orders:8080";
    let mut page = browser.page().await;
    page.open(&format!("{}page/instance?app=ORDERS&id={id}", registry.url)).await;
    page.evaluate("document.querySelector('[value=out_of_service]').focus()").await;
    page.press("Enter").await;
    page.wait("location.search.includes('done=out_of_service') && document.querySelector('.done')").await;
    let status = || registry.server.instance("ORDERS", id).map(|instance| instance.status().to_string());
    assert_eq!(status().as_deref(), Some("OUT_OF_SERVICE"));
    page.evaluate("document.querySelector('[value=back]').click()").await;
    page.wait("location.search.includes('done=back') && document.querySelector('.done')").await;
    assert_eq!(status().as_deref(), Some("UNKNOWN"), "until the next heartbeat");
    page.without_scripts().await;
    page.open(&format!("{}?q=pod-0001", registry.url)).await;
    assert_eq!(count(&mut page, ".app tbody tr").await, 1);
    page.open(&format!("{}page/instance?app=ORDERS&id={id}", registry.url)).await;
    page.evaluate("document.querySelector('[value=cancel]').click()").await;
    page.wait("location.pathname === '/lastn' && document.querySelector('tbody')").await;
    assert_eq!(status(), None);
    page.assert_own_requests_only(&registry.url);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_has_no_serious_accessibility_fault() {
    let Some(mut browser) = browser().await else { return };
    let Some(axe) = axe() else {
        eprintln!("!!! AXE-CORE CANNOT BE INSTALLED: the accessibility of the page is not tried (it needs npm)");
        return;
    };
    let registry = Registry::start().await;
    registry.fill(3);
    registry.register("ORDERS", 1);
    let id = "pod-0001:orders:8080";
    let mut page = browser.page().await;
    for path in ["", "?q=nothing", "?status=GONE", "lastn", &format!("page/instance?app=ORDERS&id={id}")] {
        for scheme in ["light", "dark"] {
            page.prefer(scheme).await;
            page.open(&format!("{}{path}", registry.url)).await;
            page.evaluate(&axe).await;
            let found =
                page.evaluate("axe.run().then(r => r.violations.map(v => [v.impact, v.id, v.nodes[0].html]))").await;
            let is_serious = |v: &&Value| v[0] == "serious" || v[0] == "critical";
            let serious: Vec<_> = found.as_array().unwrap().iter().filter(is_serious).collect();
            assert!(serious.is_empty(), "{path} {scheme}: {serious:?}");
        }
    }
}

/// With the environment variable `UPDATE_DOCS=1` the test writes the screenshots.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn screenshots_of_the_docs_have_their_size_and_cut_nothing_off() {
    let Some(mut browser) = browser().await else { return };
    let registry = Registry::start().await;
    for (app, number) in [("ORDERS", 1), ("ORDERS", 2), ("PAYMENTS", 1)] {
        registry.register(app, number);
    }
    let id = "pod-0002:orders:8080";
    registry.server.set_override("ORDERS", id, tower_eureka::model::InstanceStatus::OutOfService).unwrap();
    let mut page = browser.page().await;
    let instance = format!("{}page/instance?app=ORDERS&id={id}", registry.url);
    screenshot(&mut page, &instance, "dark", (1200, 860), 0).await;
    let mut documented = async |name: &str, query: &str, scheme: &str, size: (u32, u32), rows: usize| {
        let screenshot = screenshot(&mut page, &format!("{}{query}", registry.url), scheme, size, rows).await;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, screenshot).unwrap();
        }
        let written = size_of_png(&std::fs::read(path).unwrap());
        assert_eq!(written, Some(size), "docs/{name} is out of date: run this test with UPDATE_DOCS=1");
    };
    documented("page-3.png", "", "light", (1200, 860), 3).await;
    documented("page-phone.png", "", "light", (390, 844), 3).await;
    registry.fill(3_000);
    // A third of the 3,000, and two of the others.
    documented("page-3000-dark.png", "?q=eu-1b", "dark", (1200, 860), 1_002).await;
    page.assert_no_errors();
}

/// Opens a page in a window of this size, waits until it shows this number of instances, and
/// asserts that it fits into the width.
async fn screenshot(page: &mut Page<'_>, url: &str, scheme: &str, size: (u32, u32), rows: usize) -> Vec<u8> {
    page.prefer(scheme).await;
    page.resize(size.0, size.1).await;
    page.open(url).await;
    // The page of an instance has no script.
    page.wait("(document.getElementById('live')?.textContent ?? 'Live') === 'Live'").await;
    // A list that is being filled arrives in parts.
    page.wait(&format!("{} === {rows}", number_of(".app tbody tr"))).await;
    let widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]").await;
    assert_eq!(widths, json!([size.0, size.0]), "{url} is cut off");
    let screenshot = page.screenshot().await;
    assert_eq!(size_of_png(&screenshot), Some(size), "{url}");
    screenshot
}

/// Returns the width and the height of a PNG, or `None` if it is no PNG.
fn size_of_png(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")?;
    let (width, rest) = header.split_first_chunk()?;
    Some((u32::from_be_bytes(*width), u32::from_be_bytes(*rest.first_chunk()?)))
}

/// Returns an instance with the payload in every text that a client chooses.
fn hostile(payload: &str) -> Instance {
    let mut instance = json!({
        "status": "UP",
        "dataCenterInfo": {"name": "MyOwn"},
        "metadata": {"zone": payload, "version": payload, payload: payload},
    });
    for member in ["instanceId", "app", "hostName", "ipAddr", "vipAddress", "secureVipAddress", "homePageUrl"] {
        instance[member] = payload.into();
    }
    for member in ["statusPageUrl", "healthCheckUrl", "secureHealthCheckUrl", "appGroupName", "asgName"] {
        instance[member] = payload.into();
    }
    Instance::from_json(json!({"instance": instance}).to_string().as_bytes()).unwrap()
}

/// Returns the script of axe-core, which npm installs into the folder of the tests.
fn axe() -> Option<String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("axe");
    let script = folder.join("node_modules/axe-core/axe.min.js");
    if !script.exists() {
        std::fs::create_dir_all(&folder).ok()?;
        let install = ["install", "--no-audit", "--no-fund", "--no-save", "--silent", "axe-core@4"];
        // `timeout` bounds a registry that does not respond.
        let status = Command::new("timeout").arg("90").arg("npm").args(install).current_dir(&folder).status();
        status.ok().filter(|status| status.success())?;
    }
    std::fs::read_to_string(script).ok()
}
