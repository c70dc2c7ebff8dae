# Makes the constants of tests/estimators/test_matching.py.
#
#     R 4.2.2, Matching 4.10-8 (as Debian 12 packages them)
#     Rscript tests/estimators/oracles/matching.R NSW.csv CATTANEO.csv > tests/estimators/oracles/matching.json
#
# NSW.csv is tests/estimators/data/nsw.csv; CATTANEO.csv is treatment/tests/results/cataneo2.csv of statsmodels 0.15.0.
# Every row: data, metric, estimand, matches, bias adjustment, neighbours for the variance, caliper, estimate, error.
suppressMessages(library(Matching))
files <- commandArgs(TRUE)
nsw <- read.csv(files[1])
smoke <- read.csv(files[2])
sets <- list(
  nsw = list(y = nsw$re78, t = nsw$treat,
    x = as.matrix(nsw[, c("age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75")])),
  smoke = list(y = smoke$bweight, t = smoke$mbsmoke_,
    x = as.matrix(smoke[, c("mage", "medu", "mmarried_", "fbaby_", "prenatal1_")]))
)
weights <- c(inverse_variance = 1, mahalanobis = 2)
rows <- c()
run <- function(name, metric, estimand, m, bias, v, caliper) {
  s <- sets[[name]]
  x <- if (is.null(caliper)) s$x else s$x[, 1, drop = FALSE]
  r <- Match(Y = s$y, Tr = s$t, X = x, Weight = weights[[metric]], estimand = estimand, M = m, BiasAdjust = bias,
    Var.calc = v, sample = FALSE, caliper = caliper)
  se <- r$se
  if (!is.null(caliper)) {
    # The package's error under a caliper still counts the rows that it dropped: take that of the rows that stayed.
    kept <- setdiff(seq_along(s$y), r$index.dropped)
    se <- Match(Y = s$y[kept], Tr = s$t[kept], X = x[kept, ], Weight = weights[[metric]], estimand = estimand, M = m,
      BiasAdjust = bias, Var.calc = v, sample = FALSE)$se
  }
  sprintf('["%s", "%s", "%s", %d, %s, %d, %s, %.15g, %.15g]', name, metric, tolower(estimand), m, tolower(bias), v,
    if (is.null(caliper)) "null" else format(caliper), r$est, se)
}
for (name in names(sets)) for (metric in names(weights)) for (estimand in c("ATE", "ATT")) {
  rows <- c(rows, run(name, metric, estimand, 1, FALSE, 1, NULL), run(name, metric, estimand, 3, TRUE, 2, NULL))
}
rows <- c(rows, run("nsw", "inverse_variance", "ATT", 1, FALSE, 1, 0.1))
cat("[\n  ", paste(rows, collapse = ",\n  "), "\n]\n", sep = "")
