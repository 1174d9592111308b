package interop;
import com.netflix.discovery.EurekaClient;
import java.util.*;
import org.apache.coyote.http2.Http2Protocol;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.tomcat.servlet.TomcatServletWebServerFactory;
import org.springframework.boot.web.server.WebServerFactoryCustomizer;
import org.springframework.cloud.client.discovery.DiscoveryClient;
import org.springframework.cloud.client.loadbalancer.LoadBalancerClient;
import org.springframework.context.annotation.Bean;
import org.springframework.web.bind.annotation.*;
import org.springframework.web.client.RestTemplate;
@SpringBootApplication
@RestController
public class App {
  private final DiscoveryClient discovery; private final LoadBalancerClient balancer; private final EurekaClient eureka;
  private final RestTemplate http;
  App(DiscoveryClient d, LoadBalancerClient b, EurekaClient e, RestTemplate h) { discovery = d; balancer = b; eureka = e; http = h; }
  public static void main(String[] a) { SpringApplication.run(App.class, a); }
  /** Also the client of health checks, which are made with spring.cloud.loadbalancer.configurations=health-check. */
  @Bean static RestTemplate http() { return new RestTemplate(); }
  /** No property sets the number of streams that Tomcat takes on an HTTP/2 connection. */
  @Bean static WebServerFactoryCustomizer<TomcatServletWebServerFactory> streams(@Value("${interop.max-concurrent-streams:0}") int limit) {
    return factory -> factory.addConnectorCustomizers(connector -> {
      for (var protocol : connector.findUpgradeProtocols())
        if (limit > 0 && protocol instanceof Http2Protocol http2) http2.setMaxConcurrentStreams(limit);
    });
  }
  /**
   * Responds after so many milliseconds, which calls at the same time share.
   *
   * Reads the body first. Tomcat resets the stream of a response that is sent while the body is still on its way, and
   * then closes the whole connection without a GOAWAY when the body arrives.
   */
  @RequestMapping("/wait/{millis}") String waitFor(@PathVariable int millis, @RequestBody(required = false) String body)
      throws InterruptedException {
    Thread.sleep(millis);
    return "tomcat";
  }
  @GetMapping("/whoami") String whoami() { return eureka.getApplicationInfoManager().getInfo().getInstanceId(); }
  /** What this Java client currently sees of an application: instance id and status, one a line. */
  @GetMapping("/view/{app}") List<String> view(@PathVariable String app) {
    var a = eureka.getApplication(app);
    return a == null ? List.of() : a.getInstancesAsIsFromEureka().stream().map(i -> i.getInstanceId() + " " + i.getStatus()).sorted().toList();
  }
  /** What this Java client currently sees of an application: metadata by instance id. */
  @GetMapping("/metadata/{app}") Map<String, Map<String, String>> metadata(@PathVariable String app) {
    var a = eureka.getApplication(app);
    var seen = new TreeMap<String, Map<String, String>>();
    if (a != null) a.getInstancesAsIsFromEureka().forEach(i -> seen.put(i.getInstanceId(), new TreeMap<>(i.getMetadata())));
    return seen;
  }
  /** Calls PATH on an instance of APP that Spring Cloud LoadBalancer picks. */
  @GetMapping("/call/{app}/{path}") String call(@PathVariable String app, @PathVariable String path) {
    var i = balancer.choose(app);
    if (i == null) throw new IllegalStateException("no instance of " + app);
    return http.getForObject(i.getUri() + "/" + path, String.class);
  }
}
