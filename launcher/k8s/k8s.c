/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo k8s`: manifests for Kubernetes. */
#include "launcher/command.h"

#include "base/status.h"
#include "launcher/k8s/manifest.h"

#include <argp.h>
#include <stdio.h>
#include <string.h>

static const char OVERVIEW[] =
    "Usage: kolo k8s render KIND [OPTION...] [--] PROGRAM [ARGUMENT...]\n"
    "Print a manifest for Kubernetes. kolo k8s render --help tells more.\n";

int kolo__k8s_main(int argc, char **argv)
{
    static char name[] = "kolo k8s render";
    struct kolo__manifest manifest;
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0)) {
        fputs(OVERVIEW, stdout);
        return 0;
    }
    if (argc < 2 || strcmp(argv[1], "render") != 0) {
        fputs(OVERVIEW, stderr);
        return KOLO__EXIT_USAGE;
    }
    argv[1] = name;
    kolo__manifest_parse(argc - 1, argv + 1, &manifest);
    kolo_status status = kolo__manifest_write(stdout, &manifest);
    if (status != KOLO_OK) {
        fprintf(stderr, "kolo k8s render: %s\n", kolo_error_text());
        return KOLO__EXIT_FAILED;
    }
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : KOLO__EXIT_OUTPUT;
}
