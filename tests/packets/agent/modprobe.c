/* Stands for a node's own modprobe, below a root of its own: the kernels of test machines have br_netfilter built in. It loads
 * nothing, and makes the switches that the module would have brought, off. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int write_line(const char *path, const char *line) {
    FILE *file = fopen(path, "w");
    if (file == NULL || fprintf(file, "%s\n", line) < 0 || fclose(file) != 0) {
        return 1;
    }
    return 0;
}

int main(int count, char **arguments) {
    static const char *const switches[] = {
        "/switches/bridge-nf-call-iptables",
        "/switches/bridge-nf-call-ip6tables",
        "/switches/bridge-nf-filter-vlan-tagged",
    };
    if (count != 2 || strcmp(arguments[1], "br_netfilter") != 0) {
        fputs("modprobe: FATAL: another module\n", stderr);
        return 1;
    }
    if (access("/found", F_OK) != 0) {
        fputs("modprobe: FATAL: Module br_netfilter not found\n", stderr);
        return 1;
    }
    for (int at = 0; at < 3; at++) {
        if (write_line(switches[at], "0")) {
            perror(switches[at]);
            return 1;
        }
    }
    return 0;
}
