package interop;
import com.netflix.discovery.EurekaClient;
import java.util.*;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.cloud.client.discovery.DiscoveryClient;
import org.springframework.cloud.client.loadbalancer.LoadBalancerClient;
import org.springframework.web.bind.annotation.*;
import org.springframework.web.client.RestTemplate;
@SpringBootApplication
@RestController
public class App {
  private final DiscoveryClient discovery; private final LoadBalancerClient balancer; private final EurekaClient eureka;
  private final RestTemplate http = new RestTemplate();
  App(DiscoveryClient d, LoadBalancerClient b, EurekaClient e) { discovery = d; balancer = b; eureka = e; }
  public static void main(String[] a) { SpringApplication.run(App.class, a); }
  @GetMapping("/whoami") String whoami() { return eureka.getApplicationInfoManager().getInfo().getInstanceId(); }
  /** What this Java client currently sees of an application: instance id and status, one a line. */
  @GetMapping("/view/{app}") List<String> view(@PathVariable String app) {
    var a = eureka.getApplication(app);
    return a == null ? List.of() : a.getInstancesAsIsFromEureka().stream().map(i -> i.getInstanceId() + " " + i.getStatus()).sorted().toList();
  }
  /** Calls PATH on an instance of APP that Spring Cloud LoadBalancer picks. */
  @GetMapping("/call/{app}/{path}") String call(@PathVariable String app, @PathVariable String path) {
    var i = balancer.choose(app);
    if (i == null) throw new IllegalStateException("no instance of " + app);
    return http.getForObject(i.getUri() + "/" + path, String.class);
  }
}
