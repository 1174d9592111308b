use super::*;

const PREFIX: &str = "--spring.cloud.loadbalancer.";

fn settings(arguments: &[String], variables: &[(&str, &str)]) -> Settings {
    let builder = Settings::builder().environment(variables.iter().copied()).without_files();
    builder.arguments(arguments.iter().map(String::as_str)).load().unwrap()
}

fn arguments(properties: &[(&str, &str)]) -> Vec<String> {
    properties.iter().map(|(name, value)| format!("{PREFIX}{name}={value}")).collect()
}

/// Returns the options of these properties below `spring.cloud.loadbalancer`.
fn call_options(properties: &[(&str, &str)]) -> Result<CallOptions, String> {
    let builder = Eureka::builder_from(&settings(&arguments(properties), &[])).map_err(|error| error.to_string())?;
    Ok(builder.build().unwrap().call_options())
}

fn options(properties: &[(&str, &str)]) -> Result<String, String> {
    Ok(format!("{:?}", call_options(properties)?))
}

/// Returns the options of one application.
fn options_of(app: &str, options: &CallOptions) -> String {
    format!("{:?}", options.for_application(app))
}

#[test]
fn settings_of_the_load_balancer_are_options_of_calls() {
    let default = format!("{:?}", CallOptions::new());
    assert_eq!(options(&[]), Ok(default.clone()));
    for properties in [
        &[("configurations", "health-check")][..],
        &[("configurations", "request-based-sticky-session")],
        &[("configurations", "subset")],
        &[("configurations", "zone-preference"), ("zone", "a")],
        &[("configurations", "same-instance-preference")],
        &[("configurations", "api-version"), ("api-version.required", "true")],
        &[("configurations", "api-version"), ("api-version.media-type-parameters[application/json]", "v")],
        &[("configurations", "api-version"), ("api-version.header", "x-version")],
        &[("retry.enabled", "false")],
        &[("retry.max-retries-on-next-service-instance", "5")],
        &[("retry.retry-on-all-operations", "true")],
        &[("retry.retryable-status-codes", "502,503")],
        &[("retry.backoff.enabled", "true")],
        &[("health-check.port", "9000")],
        &[("health-check.path.default", "/ready")],
        &[("hint.default", "blue")],
        &[("hint-header-name", "x-hint")],
        &[("sticky-session.add-service-instance-cookie", "true")],
        &[("x-forwarded.enabled", "true")],
    ] {
        assert_ne!(options(properties), Ok(default.clone()), "{properties:?}");
    }
    let checked = options(&[("configurations", "health-check"), ("health-check.interval", "10s")]).unwrap();
    assert!(checked.contains("interval: Some(10s)"), "{checked}");
    for without_effect in [
        &[("health-check.interval", "10s")][..],
        &[("configurations", "weighted")],
        &[("zone", "a")],
        &[("sticky-session.instance-id-cookie-name", "id")],
        &[("subset.instance-id", "a")],
        &[("retry.backoff.min-backoff", "10")],
    ] {
        assert_eq!(options(without_effect), Ok(default.clone()), "{without_effect:?}");
    }
    for (name, value) in [
        ("retry.retryable-status-codes", "x"),
        ("subset.size", "many"),
        ("retry.enabled", "2"),
        ("retry.backoff.jitter", "2"),
        ("retry.backoff.max-backoff", "0"),
        ("hint-header-name", "a b"),
        ("health-check.port", "0"),
        ("clients.orders.retry.enabled", "2"),
        ("api-version.required", "2"),
        ("api-version.media-type-parameters.json", "v"),
        ("clients.orders.api-version.media-type-parameters.json", "v"),
        ("eager-load.clients", "a/b"),
    ] {
        assert!(options(&[(name, value)]).unwrap_err().contains(name), "{name}");
    }
}

#[test]
fn backoff_is_that_of_spring() {
    let backoff = |properties: &[(&str, &str)]| {
        let properties = [&[("retry.backoff.enabled", "true")], properties].concat();
        let shown = options(&properties).unwrap();
        shown[shown.find("backoff: ").unwrap()..].split(" }").next().unwrap().to_owned()
    };
    assert!(backoff(&[]).contains("first: 5ms"), "{}", backoff(&[]));
    assert!(backoff(&[]).contains("jitter: 0.5"));
    let set = backoff(&[("retry.backoff.min-backoff", "20"), ("retry.backoff.max-backoff", "1s")]);
    assert!(set.contains("first: 20ms, max: 1s"), "{set}");
    assert!(backoff(&[("retry.backoff.jitter", "0.1")]).contains("jitter: 0.1"));
}

#[test]
fn settings_of_a_service_hold_for_its_application_only() {
    let options = call_options(&[
        ("configurations", "health-check,subset"),
        ("retry.max-retries-on-next-service-instance", "4"),
        ("retry.backoff.min-backoff", "30"),
        ("hint.default", "green"),
        ("hint.orders", "blue"),
        ("health-check.path.orders", "/ready"),
        ("clients.orders.retry.backoff.enabled", "true"),
        ("clients.order-service.retry.enabled", "false"),
        ("clients.order-service.service-discovery.timeout", "250"),
        ("clients.plain.configurations", "default"),
        ("clients.checked.health-check.interval", "3s"),
    ])
    .unwrap();
    let other = options_of("OTHER", &options);
    assert!(
        other.contains("interval: Some(25s)") && other.contains("attempts: 5") && other.contains("green"),
        "{other}"
    );
    assert!(other.contains("backoff: None") && other.contains("ready_timeout: None"), "{other}");

    let orders = options_of("ORDERS", &options);
    assert!(orders.contains("blue") && orders.contains("/ready") && orders.contains("first: 30ms"), "{orders}");
    assert!(orders.contains("attempts: 5") && orders.contains("interval: Some(25s)"), "{orders}");

    let service = options_of("ORDER-SERVICE", &options);
    assert!(service.contains("attempts: 1") && service.contains("ready_timeout: Some(250ms)"), "{service}");

    let plain = options_of("PLAIN", &options);
    assert!(plain.contains("interval: None") && plain.contains("subset: None"), "{plain}");
    let checked = options_of("CHECKED", &options);
    assert!(checked.contains("interval: Some(3s)") && !checked.contains("subset: None"), "{checked}");
}

#[test]
fn settings_of_a_service_are_read_from_variables() {
    let variables = [
        ("SPRING_CLOUD_LOADBALANCER_CLIENTS_ORDERSERVICE_RETRY_ENABLED", "false"),
        ("SPRING_CLOUD_LOADBALANCER_CLIENTS_REVIEWS_RETRY_MAXRETRIESONNEXTSERVICEINSTANCE", "7"),
        ("SPRING_CLOUD_LOADBALANCER_HINT_HEADER_NAME", "x-hint"),
        ("SPRING_CLOUD_LOADBALANCER_HINT_REVIEWS", "blue"),
    ];
    let options = CallOptions::from_settings(&settings(&[], &variables)).unwrap();
    assert!(options_of("ORDER-SERVICE", &options).contains("attempts: 1"));
    let reviews = options_of("REVIEWS", &options);
    assert!(reviews.contains("attempts: 8") && reviews.contains("blue") && reviews.contains("x-hint"), "{reviews}");
}

#[test]
fn hint_header_has_the_precedence_of_its_own_setting() {
    let variables = [
        ("SPRING_CLOUD_LOADBALANCER_HINT_HEADER_NAME", "x-variable"),
        ("SPRING_CLOUD_LOADBALANCER_CLIENTS_ORDERS_HINT_HEADER_NAME", "x-orders"),
        ("SPRING_CLOUD_LOADBALANCER_CLIENTS_REVIEWS_HINT_HEADER_NAME", "x-reviews"),
    ];
    let arguments = arguments(&[("hint-header-name", "x-argument"), ("clients.orders.hint-header-name", "x-argued")]);
    let options = CallOptions::from_settings(&settings(&arguments, &variables)).unwrap();
    for (app, header) in [("OTHER", "x-argument"), ("ORDERS", "x-argued"), ("REVIEWS", "x-reviews")] {
        let shown = options_of(app, &options);
        assert!(shown.contains(&format!("header: \"{header}\"")), "{app}: {shown}");
        assert!(shown.contains("value: \"default\""), "{app}: {shown}");
    }
}

#[test]
fn maps_within_the_settings_of_a_service_prefer_its_own_entry() {
    let (own, default) = (("clients.orders.hint.Orders", "own"), ("clients.orders.hint.default", "default"));
    let global = ("hint.orders", "global");
    for (properties, hint) in [
        (&[own, default, global][..], "own"),
        (&[default, own], "own"),
        (&[default, global], "default"),
        (&[global], "global"),
        (&[global, ("clients.orders.hint.reviews", "other")], "global"),
    ] {
        let shown = options_of("ORDERS", &call_options(properties).unwrap());
        assert!(shown.contains(&format!("value: \"{hint}\"")), "{properties:?}: {shown}");
    }
    let variables = [
        ("SPRING_CLOUD_LOADBALANCER_CLIENTS_ORDERS_HINT_DEFAULT", "blue"),
        ("SPRING_CLOUD_LOADBALANCER_CLIENTS_ORDERSERVICE_HEALTHCHECK_PATH_ORDERSERVICE", "/ready"),
    ];
    let options = CallOptions::from_settings(&settings(&[], &variables)).unwrap();
    assert!(options_of("ORDERS", &options).contains("blue"));
    assert!(options_of("ORDER-SERVICE", &options).contains("/ready"));
}

#[test]
fn empty_path_in_a_document_switches_health_checks_off() {
    let json = r#"{"spring.cloud.loadbalancer": {
        "health-check.path": {"default": "/ready", "orders": ""}, "clients.reviews.health-check.path.default": ""
    }}"#;
    let options = CallOptions::from_settings(&settings(&[], &[("SPRING_APPLICATION_JSON", json)])).unwrap();
    for (app, path) in [("OTHER", "/ready"), ("ORDERS", ""), ("REVIEWS", "")] {
        assert!(options_of(app, &options).contains(&format!("path: Some(\"{path}\")")), "{app}");
    }
}

#[test]
fn version_that_is_required_contradicts_a_default() {
    let (required, default) = (("api-version.required", "true"), ("api-version.default", "1"));
    let error = options(&[required, default]).unwrap_err();
    assert!(error.contains("api-version.required: expected false"), "{error}");
    let error = options(&[("clients.orders.api-version.required", "true"), default]).unwrap_err();
    assert!(error.contains("api-version.required"), "{error}");
    assert!(options(&[("api-version.required", "false"), default]).is_ok());
}

/// Returns the zone of a client with these properties and variables.
fn zone(arguments: &[&str]) -> Result<Option<String>, String> {
    let arguments: Vec<String> = arguments.iter().map(|argument| format!("--{argument}")).collect();
    let builder = Eureka::builder_from(&settings(&arguments, &[])).map_err(|error| error.to_string())?;
    let shown = format!("{:?}", builder.build().unwrap().call_options());
    let zone = |field: &str| {
        let (_, rest) = shown.split_once(field)?;
        Some(rest.split('"').next().unwrap_or_default().to_owned()).filter(|zone| !zone.is_empty())
    };
    Ok(zone("own: \"").or_else(|| zone("own_zone: Some(\"")))
}

#[test]
fn zone_preference_takes_the_zone_of_the_first_setting_that_has_one() {
    const PREFERENCE: &str = "spring.cloud.loadbalancer.configurations=zone-preference";
    const SET: &str = "spring.cloud.loadbalancer.zone=set";
    const METADATA: &str = "eureka.instance.metadata-map.zone=metadata";
    const AVAILABILITY: &str = "eureka.client.availability-zones.us-east-1=first,second";
    const HOST: &str = "eureka.instance.hostname=node1.rack7.example.org";
    const APPROXIMATE: &str = "spring.cloud.loadbalancer.eureka.approximate-zone-from-hostname=true";
    for (arguments, expected) in [
        (&[PREFERENCE, SET, METADATA, AVAILABILITY, HOST, APPROXIMATE][..], Some("set")),
        (&[PREFERENCE, METADATA, AVAILABILITY, HOST, APPROXIMATE], Some("rack7")),
        (&[PREFERENCE, METADATA, AVAILABILITY, HOST], Some("metadata")),
        (&[PREFERENCE, AVAILABILITY, HOST], Some("first")),
        (&[PREFERENCE, "eureka.metadata.zone=netflix"], Some("netflix")),
        (&[PREFERENCE, "eureka.client.availability-zones.us-east-1=defaultZone"], None),
        (&[PREFERENCE], None),
    ] {
        assert_eq!(zone(arguments).as_ref().map(Option::as_deref), Ok(expected), "{arguments:?}");
    }
    let error = zone(&[PREFERENCE, APPROXIMATE, "eureka.instance.hostname=node1"]).unwrap_err();
    assert!(error.contains("node1") && error.contains("eureka.instance.hostname"), "{error}");
}

#[test]
fn zone_preference_without_a_zone_is_reported() {
    let lacks = |properties: &[(&str, &str)], zone: Option<&str>| {
        let mut balancing = Eureka::builder_from(&settings(&arguments(properties), &[])).unwrap().balancing;
        balancing.or_own_zone(zone);
        balancing.lacks_zone()
    };
    let preference = ("configurations", "zone-preference");
    assert!(lacks(&[preference], None));
    assert!(lacks(&[("clients.orders.configurations", "zone-preference")], None));
    assert!(!lacks(&[preference, ("zone", "a")], None));
    assert!(!lacks(&[preference], Some("a")));
    assert!(!lacks(&[("configurations", "subset")], None));
}
