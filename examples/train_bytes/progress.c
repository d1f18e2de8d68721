/* SPDX-License-Identifier: Apache-2.0 */
/* The progress line and the CSV: see progress.h. */
#include "progress.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Cuts the file behind the last row that the checkpoint knows of. */
static int keep_rows(FILE *csv, uint64_t last_step)
{
    char *line = NULL;
    size_t size = 0;
    off_t end = 0;
    for (ssize_t length; (length = getline(&line, &size, csv)) > 0; end += length) {
        bool heading = end == 0;
        if (line[length - 1] != '\n' || (!heading && strtoull(line, NULL, 10) > last_step))
            break;
    }
    free(line);
    if (ftruncate(fileno(csv), end) != 0 || fseeko(csv, end, SEEK_SET) != 0)
        return -1;
    if (end == 0)
        fputs("step,loss,tokens_per_s,comm_share\n", csv);
    return 0;
}

int progress_open(const char *csv, uint64_t first_step, uint64_t every, struct progress *progress)
{
    *progress = (struct progress){.terminal = isatty(STDOUT_FILENO), .every = every};
    if (!csv)
        return 0;
    progress->csv = first_step > 0 ? fopen(csv, "r+") : NULL;
    if (!progress->csv)
        progress->csv = fopen(csv, "w+");
    if (progress->csv) /* a row is in the file before a checkpoint counts its step as done */
        setvbuf(progress->csv, NULL, _IOLBF, BUFSIZ);
    if (!progress->csv || keep_rows(progress->csv, first_step) != 0) {
        fprintf(stderr, "train_bytes: cannot write %s: %s\n", csv, strerror(errno));
        return -1;
    }
    return 0;
}

static bool is_due(const struct progress *progress, uint64_t step)
{
    if (!progress->terminal && progress->every > 0)
        return step % progress->every == 0;
    return progress->seconds >= (progress->terminal ? 0.25 : 1);
}

static void show(struct progress *progress, const struct step_report *report)
{
    printf("%sstep %llu  loss %.4f  %.0f tokens/s  communication %.1f %%%s",
           progress->terminal ? "\r" : "", (unsigned long long)report->step, report->loss,
           progress->tokens / progress->seconds,
           100 * progress->communication_seconds / progress->seconds,
           progress->terminal ? "\033[K" : "\n");
    fflush(stdout);
    progress->tokens = progress->seconds = progress->communication_seconds = 0;
    progress->shown = report->step;
}

void progress_step(struct progress *progress, const struct step_report *report)
{
    progress->tokens += report->tokens;
    progress->seconds += report->seconds;
    progress->communication_seconds += report->communication * report->seconds;
    if (is_due(progress, report->step))
        show(progress, report);
    if (progress->csv)
        fprintf(progress->csv, "%llu,%.6f,%.0f,%.4f\n", (unsigned long long)report->step,
                report->loss, report->tokens / report->seconds, report->communication);
}

int progress_close(struct progress *progress, const struct step_report *last)
{
    if (progress->seconds > 0 && progress->shown != last->step)
        show(progress, last);
    if (progress->terminal && progress->shown)
        printf("\n");
    if (!progress->csv)
        return 0;
    int failed = ferror(progress->csv);
    if (fclose(progress->csv) != 0 || failed) {
        fprintf(stderr, "train_bytes: the CSV is incomplete: %s\n", strerror(errno));
        return -1;
    }
    return 0;
}
