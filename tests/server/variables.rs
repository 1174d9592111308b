//! The environment of the binary: variables that are read, refused, or named in the log.

use std::process::Command;

use crate::binary::{free_port, listens, plain, serve};

/// Returns the variables that Kubernetes sets in each container for a service of this name.
fn service_links(service: &str) -> Vec<(String, String)> {
    [
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT", "8761"),
        ("SERVICE_PORT_HTTP", "8761"),
        ("PORT", "tcp://10.0.0.1:8761"),
        ("PORT_8761_TCP", "tcp://10.0.0.1:8761"),
        ("PORT_8761_TCP_PROTO", "tcp"),
        ("PORT_8761_TCP_PORT", "8761"),
        ("PORT_8761_TCP_ADDR", "10.0.0.1"),
    ]
    .map(|(name, value)| (format!("{service}_{name}"), value.to_owned()))
    .into()
}

/// Returns the exit code and stderr of a binary that does not start.
fn fails(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn variables_without_effect_are_named_in_a_warning() {
    let mut command = serve("127.0.0.1:0");
    command.envs([
        ("EUREKA_SERVER_BATCHREPLICATION", "true"),
        ("EUREKA_CLIENT_HEALTHCHECK_ENABLED", "true"),
        ("EUREKA_USER", "geheim"),
        ("EUREKA_CLIENT_SERVICEURL_DEFAULTZNE", "http://u:geheim@127.0.0.1:1/eureka/"),
        ("EUREKA_SERVER_REMOTEREGIONAPPWHITELIST_ASIA", "orders"),
        ("SPRING_MAIN_BANNERMODE", "geheim"),
        ("SERVER_TOMCAT_MAX_THREADS", "7"),
        ("server.servlet.session.timeout", "7"),
        ("SPRING_APPLICATION_JSON", r#"{"eureka":{"server":{"my-ulr":"geheim"}}}"#),
        ("JAVA_TOOL_OPTIONS", "-Xmx1g -Deureka.client.region=geheim"),
        // These have an effect.
        ("EUREKA_SERVER_EVICTION_INTERVAL_TIMER_IN_MS", "1000"),
        ("eureka_server_responsecacheupdateintervalms", "1000"),
        ("SPRING_APPLICATION_NAME", "registry"),
        ("SPRING_PROFILES_ACTIVE", "prod"),
        ("EUREKA_INSTANCE_METADATAMAP_ZONE", "a"),
        // These enable nothing.
        ("SERVER_SSL_ENABLED", "false"),
        ("SERVER_SSL_KEY_STORE", "geheim"),
        ("EUREKA_CLIENT_TLS_ENABLED", "false"),
        ("EUREKA_CLIENT_TLS_KEYSTORE", "geheim"),
        ("SERVER_SERVLET_CONTEXT_PATH", "/"),
    ]);
    let (_, log) = listens(command);
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    let warnings: Vec<_> = warnings.into_iter().filter(|line| !line.contains("file descriptors")).collect();
    for expected in [
        "EUREKA_USER is no setting",
        "URLs of a zone have no effect: the zone is not among those of the region zone=\"defaultzne\"",
        "white list has no effect: there is no remote region of this name region=\"asia\"",
        "SPRING_APPLICATION_JSON: eureka.server.my-ulr is no setting; did you mean eureka.server.my-url?",
        "JAVA_TOOL_OPTIONS has settings of a JVM",
    ] {
        assert_eq!(warnings.iter().filter(|line| line.contains(expected)).count(), 1, "{expected}: {log}");
    }
    assert_eq!(warnings.len(), 5, "{log}");
    for expected in [
        "EUREKA_SERVER_BATCHREPLICATION: a registry server has no use for it",
        "EUREKA_CLIENT_HEALTHCHECK_ENABLED: it is a setting of clients",
        "SPRING_MAIN_BANNERMODE, SERVER_TOMCAT_MAX_THREADS, server.servlet.session.timeout",
    ] {
        let lines = log.lines().filter(|line| line.contains("INFO") && line.contains(expected));
        assert_eq!(lines.count(), 1, "{expected}: {log}");
    }
    assert!(!log.contains("geheim"), "{log}");
}

#[test]
fn unknown_variable_is_an_error_that_names_the_nearest_setting() {
    for (variable, expected) in [
        ("EUREKA_SERVER_ENABELSELFPRESERVATION", "did you mean eureka.server.enable-self-preservation?"),
        ("eureka.server.renewal-percent-treshold", "did you mean eureka.server.renewal-percent-threshold?"),
        ("eureka_client_service_ulr_defaultzone", "did you mean eureka.client.service-url.<zone>?"),
        ("EUREKA_INSTANCE_HOSTNAM", "did you mean eureka.instance.hostname?"),
        ("EUREKA_SEVER_ENABLE_SELF_PRESERVATION", "did you mean eureka.server.enable-self-preservation?"),
        ("EUREKA_SERVER_FOO", "EUREKA_SERVER_FOO is no setting"),
        ("SERVER_PROT", "did you mean server.port?"),
        ("SERVER_ADRESS", "did you mean server.address?"),
        ("SERVER_FOO", "SERVER_FOO is no setting"),
        ("SPRING_APLICATION_NAME", "did you mean spring.application.name?"),
        ("SPRING_PROFILES_ACTVE", "did you mean spring.profiles.active?"),
        ("SPRING_CONFIG_LOCATON", "did you mean spring.config.location?"),
    ] {
        let mut command = serve("127.0.0.1:0");
        command.env(variable, "geheim");
        let (code, error) = fails(command);
        assert_eq!(code, Some(1), "{variable}: {error}");
        assert!(
            error.contains(variable) && error.contains(expected) && !error.contains("geheim"),
            "{variable}: {error}"
        );
    }
}

#[test]
fn setting_that_protects_a_spring_server_is_refused_in_each_form() {
    let access = "no such access control";
    for (variable, value, expected) in [
        ("SPRING_SECURITY_OAUTH2_CLIENT_REGISTRATION_X_CLIENTID", "geheim", access),
        ("SECURITY_USER_PASSWORD", "geheim", "use spring.security.user.name"),
        ("SECURITY_BASIC_ENABLED", "true", "use spring.security.user.name"),
        ("SPRING_SECURITY_USER_PASSWORD", "", "is blank: set it, or remove it"),
        ("SPRING_APPLICATION_JSON", r#"{"spring":{"security":{"saml2":{"x":"geheim"}}}}"#, "spring.security"),
        ("SERVER_SERVLET_CONTEXT_PATH", "/registry", "/eureka/"),
        ("SERVER_SSL_CIPHERS", "geheim", "there is no certificate"),
        ("SERVER_SSL_KEYALIAS", "geheim", "there is no certificate"),
    ] {
        let mut command = serve("127.0.0.1:0");
        command.env(variable, value);
        let (code, error) = fails(command);
        assert_eq!(code, Some(1), "{variable}: {error}");
        assert!(
            error.contains(variable) && error.contains(expected) && !error.contains("geheim"),
            "{variable}: {error}"
        );
    }
    let argument = "--spring.security.saml2.x=geheim";
    let mut command = serve("127.0.0.1:0");
    command.arg(argument);
    let (code, error) = fails(command);
    assert!(code == Some(1) && !error.contains("geheim"), "{argument}: {error}");
}

#[test]
fn arguments_of_a_spring_server_without_a_meaning_do_not_stop_the_start() {
    let mut command = serve("127.0.0.1:0");
    command.args([
        "--spring.profiles.active=prod",
        "--server.shutdown=graceful",
        "--server.ssl.enabled=false",
        "--server.ssl.key-store=geheim",
        "--server.servlet.context-path=/",
        "--eureka.client.healthcheck.enabled=true",
        "--eureka.instance.metadata-map.zone=a",
    ]);
    let (_, log) = listens(command);
    let ignored = log.lines().filter(|line| line.contains("INFO") && line.contains("ignored")).count();
    assert_eq!(ignored, 2, "{log}");
}

#[test]
fn tls_store_of_the_peers_that_cannot_be_read_stops_the_start() {
    let mut command = serve("127.0.0.1:0");
    let store = [("EUREKA_CLIENT_TLS_TRUSTSTORE", "missing.p12"), ("EUREKA_CLIENT_TLS_TRUSTSTOREPASSWORD", "geheim")];
    command.env("EUREKA_CLIENT_TLS_ENABLED", "true").envs(store);
    let (code, error) = fails(command);
    assert_eq!(code, Some(1), "{error}");
    for part in ["the TLS settings for peers are unusable", "missing.p12"] {
        assert!(error.contains(part) && !error.contains("geheim"), "{part}: {error}");
    }
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_do_not_stop_the_start() {
    for service in ["EUREKA", "EUREKA_SERVER", "EUREKA_CLIENT", "SERVER", "SPRING_CLOUD_CONFIG"] {
        let mut command = serve("127.0.0.1:0");
        command.envs(service_links(service));
        let (_, log) = listens(command);
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN") && line.contains(service)).collect();
        assert!(warnings.iter().all(|line| line.contains("Kubernetes")), "{service}: {log}");
    }
    // The address then comes from the other settings.
    let port = free_port().to_string();
    let mut command = plain();
    command.envs(service_links("SERVER")).arg(format!("--server.port={port}")).arg("--server.address=127.0.0.1");
    assert_eq!(listens(command).0, format!("127.0.0.1:{port}"));
}

#[test]
fn regions_and_zones_are_read_from_each_form_of_variables() {
    for region in [
        "EUREKA_SERVER_REMOTEREGIONURLSWITHNAME_EU",
        "EUREKA_SERVER_REMOTE_REGION_URLS_WITH_NAME_EU",
        "eureka_server_remoteregionurlswithname_eu",
        "eureka.server.remote-region-urls-with-name.eu",
    ] {
        let mut command = serve("127.0.0.1:0");
        command.env(region, "nonsense");
        let (code, error) = fails(command);
        assert!(code == Some(1) && error.contains("remote region"), "{region}: {error}");
    }
    for zone in [
        "EUREKA_CLIENT_SERVICEURL_DEFAULTZONE",
        "EUREKA_CLIENT_SERVICE_URL_DEFAULT_ZONE",
        "eureka_client_serviceurl_defaultzone",
        "eureka.client.service-url.defaultZone",
    ] {
        let mut command = serve("127.0.0.1:0");
        command.env(zone, "nonsense");
        let (code, error) = fails(command);
        assert!(code == Some(1) && error.contains("a peer's URL is unusable"), "{zone}: {error}");
    }
}

#[test]
fn ssl_setting_never_leads_to_plain_http() {
    let without = "server.ssl has settings, but no certificate";
    for (variable, value, expected) in [
        ("SERVER_SSL_ENABLED", "true", without),
        ("SERVER_SSL_KEYSTOREPASSWORD", "geheim", without),
        ("SERVER_SSL_CLIENTAUTH", "need", without),
        ("SERVER_SSL_KEY_STORE", "absent.p12", "read TLS file at absent.p12"),
        ("SERVER_SSL_CERTIFICATE", "absent.pem", "server.ssl.certificate has no key"),
        ("SPRING_APPLICATION_JSON", r#"{"server.ssl":{"enabled":true}}"#, without),
    ] {
        let mut command = serve("127.0.0.1:0");
        command.env(variable, value);
        let (code, error) = fails(command);
        assert_eq!(code, Some(1), "{variable}: {error}");
        assert!(error.contains(expected) && !error.contains("geheim"), "{variable}: {error}");
    }
}
