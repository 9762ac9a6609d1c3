"""Words of four topics: medicine, law, finance, software."""

from sample_data.grammar.engine import words

MEDICINE = words(
    role="surgeon, nurse, doctor, physician, midwife, ward sister, pharmacist, anaesthetist, "
    "paramedic, medical student, dentist, radiographer, consultant",
    n="fracture, fever, rash, infection, heart murmur, wound, blood test, ulcer, migraine, "
    "tumour, abscess, vaccine, pulse, dressing, swelling, cough, allergy, sprained ankle, X-ray",
    adj="chronic, painful, mild, infected, swollen, acute, feverish, benign, stable, inflamed, "
    "recurring, healing, viral, bruised",
    qual="healing well, worse at night, free of infection, sensitive to touch, under control, "
    "likely viral, no longer painful, in need of surgery, slow to respond to treatment, clear on "
    "the scan, back within normal limits, swollen",
    stuff="antibiotics, painkillers, insulin, saline, blood, bandages, stitches, antiseptic, "
    "oxygen, iron tablets, steroids, cough syrup, plasma, vitamins, morphine",
    tool="stethoscope, scalpel, syringe, thermometer, scanner, drip, wheelchair, blood-pressure "
    "cuff, splint, ward trolley, oxygen mask",
    organ="liver, lung, kidney, knee, heart, throat, stomach, left wrist, spine",
    place="on the ward, in the clinic, in the operating theatre, at the bedside, in intensive "
    "care, at the surgery, in the waiting room, at the emergency desk, in the recovery room, at "
    "the blood bank",
    cause="a bacterial infection, high blood pressure, a blocked artery, an allergy to {stuff}, "
    "a torn ligament, a missed dose, an old {n}, lack of oxygen",
    measure="""
{num} milligrams of {stuff}
{small} doses of {stuff}
a temperature of {num}
{small} stitches in the {organ}
{small} units of blood
""",
    idea="infection control, the healing of wounds, blood pressure, pain relief, vaccination, "
    "the function of the {organ}, early diagnosis, the dosing of {stuff}",
    vp="""
prescribe {stuff} for the {n}
examine the {organ} of the patient {place}
dress the {adj} {n} with {stuff}
diagnose a_ {adj} {n} {place}
inject {num} milligrams of {stuff} into the vein
stitch the {n} {place}
operate on the {organ} {place}
treat the {n} with {stuff} and {stuff}
listen to the {organ} with a stethoscope
take a sample of blood {place}
monitor the {n} {place}
scan the {organ} for a_ {n}
give the patient {small} doses of {stuff}
discharge the patient with {stuff}
complain of a_ {adj} {n} in the {organ}
clean the {adj} wound with {stuff}
set the (arm|wrist|broken leg|collarbone) {place}
vaccinate {num} children {place}
order a scan of the {organ}
admit a patient with a_ {adj} {n}
note the symptoms of the {n} on the chart
""",
    hap="""
the {n} / spread to the {organ}
the patient / recover {place}
the fever / break after {small} doses of {stuff}
the {organ} / stop bleeding {place}
the {n} / return after {small} weeks
the symptoms // point to a_ {adj} {n}
{stuff} / ease the pain in the {organ}
the scan / show a_ {adj} {n}
the wound / heal without {stuff}
the patient / faint {place}
the {adj} {n} / respond to {stuff}
the pulse / race {place}
""",
    fact="""
a_ {adj} {n} should be treated with {stuff}
untreated, a_ {n} can damage the {organ}
{stuff} / work only if taken with food and rest
most patients with a_ {adj} {n} recover within {small} weeks
the {organ} heals slowly after {cause}
pain in the {organ} may hide a_ {n}
""",
)

LAW = words(
    role="judge, barrister, solicitor, defendant, witness, court clerk, prosecutor, plaintiff, "
    "juror, bailiff, magistrate, legal adviser, attorney",
    n="verdict, appeal, contract, lawsuit, testimony, statute, warrant, hearing, injunction, "
    "clause, affidavit, sentence, objection, trial, plea, settlement, alibi, summons, subpoena",
    adj="binding, disputed, unlawful, sworn, pending, unfair, written, sealed, invalid, lenient, "
    "contested, civil, criminal, unsigned",
    qual="void in law, under appeal, supported by the evidence, adjourned until spring, binding "
    "on both parties, thrown out by the court, signed under oath, beyond reasonable doubt, "
    "contrary to the statute, still before the bench, open to challenge, settled out of court",
    stuff="evidence, damages, legal costs, perjury, case law, exhibits, sworn statements, bail, "
    "precedents, witness statements, court fees, fingerprints, legal aid",
    tool="gavel, law report, case file, statute book, witness box, docket, legal brief, wig",
    crime="fraud, theft, negligence, trespass, libel, arson, breach of contract, bribery",
    place="in open court, before the bench, at the bar, in the witness box, in chambers, at the "
    "high court, in the dock, before the jury, at the tribunal, on the courthouse steps",
    cause="a lack of evidence, a flawed warrant, a hostile witness, a breach of contract, new "
    "testimony, a hung jury, a missing exhibit, a procedural error",
    measure="""
{num} months in prison
damages of {num} thousand
{small} counts of {crime}
{small} sworn statements
a fine of {num} thousand
""",
    idea="burden of proof, the law of contract, the right to appeal, cross-examination, legal "
    "precedent, jury selection, the sentencing of {crime}, property rights",
    vp="""
plead guilty to {small} counts of {crime}
cross-examine the witness about the {n}
file a_ {adj} {n} against the (landlord|company|council|insurer)
overrule the {n} {place}
charge the defendant with {crime}
draft a_ {adj} {n} for the client
sentence the defendant to {num} months for {crime}
submit {stuff} {place}
appeal against the {adj} {n}
swear an oath {place}
award damages of {num} thousand to the plaintiff
adjourn the {n} because of {cause}
argue that the {n} was {adj}
acquit the accused of {crime}
read the {n} aloud {place}
dismiss the charge of {crime}
sign the {adj} {n} before a notary
testify about the {crime} {place}
object to {stuff} {place}
sue the (tenant|publisher|builder|bank) for {crime}
cite {stuff} in support of the {n}
""",
    hap="""
the jury / reach a_ {adj} verdict
the {n} / collapse {place}
the court / hear {stuff} of {crime}
the witness / contradict the {n}
the judge / reject the {adj} {n}
the {n} / rest on {stuff}
the defendant / deny {small} counts of {crime}
the {n} / expire under the statute
the prosecution / call {small} witnesses {place}
the parties // agree to a_ {adj} settlement
the appeal / fail {place}
the clerk / seal the {n} {place}
""",
    fact="""
a_ {adj} {n} cannot stand without {stuff}
the accused is innocent of {crime} until proven guilty
{crime} carries {num} months in prison
no court accepts a_ {adj} {n} without {stuff}
a witness must tell the truth {place}
the statute allows a_ {n} in cases of {crime}
""",
)

FINANCE = words(
    role="banker, investor, broker, accountant, auditor, trader, fund manager, treasurer, "
    "shareholder, loan officer, analyst, bookkeeper, central banker, pensioner with savings",
    n="loan, bond, dividend, mortgage, pension fund, budget, invoice, share price, portfolio, "
    "interest rate, tax return, overdraft, savings account, balance sheet, credit line, merger, "
    "quarterly report, hedge fund",
    adj="overdue, profitable, volatile, fixed-rate, risky, audited, unpaid, quarterly, inflated, "
    "long-term, cautious, undervalued, short-term, leveraged",
    qual="in the red, above market value, due at the end of the quarter, backed by assets, lower "
    "than last year, covered by the reserve, worth selling, exposed to inflation, taxed at "
    "source, profitable at last, under review by the auditors, losing value",
    stuff="cash, shares, interest, debt, capital, profits, bank notes, government bonds, "
    "savings, gold reserves, taxes, revenue, foreign currency, collateral, dividends",
    tool="ledger, spreadsheet, trading desk, cheque book, bank statement, stock index, price "
    "chart, credit rating, cash register",
    firm="the bank, the pension fund, the brewery, the insurer, the holding company, the steel "
    "maker, the start-up, the building society",
    place="at the bank, on the stock exchange, in the third quarter, at the trading desk, in the "
    "annual accounts, on the bond market, at the shareholders' meeting, in the ledger, after the "
    "market closed, in emerging markets",
    cause="rising interest rates, weak demand, a profit warning, a bad loan, inflation, a run on "
    "the bank, currency swings, a failed merger",
    measure="""
{num} million in {stuff}
a return of {small} per cent
{num} thousand shares
a loss of {num} million
{small} per cent interest
""",
    sum="""
{num} million in {stuff}
{num} thousand in {stuff}
{num} million
""",
    idea="compound interest, risk and return, inflation, double-entry bookkeeping, the bond "
    "market, diversification, the pricing of shares, public debt",
    vp="""
invest {sum} in {firm}
borrow {sum} from {firm}
repay the {adj} {n} with interest
sell {stuff} {place}
audit the books of {firm}
raise the interest rate by {small} per cent
deposit {stuff} {place}
balance the ledger against the {n}
lend {sum} to {firm}
buy {sum} {place}
cut the dividend of {firm}
refinance the {adj} {n} {place}
report {measure} {place}
write off the {n} as a bad debt
hedge the {n} against (inflation|currency risk|falling prices)
pay {stuff} on the {adj} {n}
value {firm} at {num} million
transfer {stuff} into (the savings account|a pension|a trust fund)
withdraw {sum} {place}
insure the {n} against default
forecast {measure} for {firm}
""",
    hap="""
shares in {firm} // fall by {small} per cent
the {n} / yield {measure}
the market / rally {place}
{firm} / announce {measure}
investors // sell {stuff} {place}
the {n} / mature {place}
inflation / eat into the {n}
profits at {firm} // rise to {num} million
the {adj} {n} / default {place}
the central bank / cut rates by {small} points
{firm} / default on a_ {adj} {n}
the price of {stuff} / double {place}
""",
    fact="""
a_ {adj} {n} pays more {stuff} but carries more risk
no investor should keep all {stuff} in one {n}
a_ {n} loses value when interest rates rise
{firm} earns {sum} from each {n}
debt grows faster than {stuff} {place}
a_ {adj} {n} is only as safe as the bank behind it
""",
)

SOFTWARE = words(
    role="developer, programmer, system administrator, tester, data engineer, release manager, "
    "maintainer, security researcher, database administrator, support engineer, intern on the "
    "team",
    n="compiler, server, database, bug, memory leak, unit test, login page, function, cache, "
    "parser, thread pool, web service, pull request, loop, backup script, API, primary key, "
    "build pipeline, stack trace",
    adj="buggy, open-source, nested, deprecated, recursive, encrypted, multithreaded, legacy, "
    "cached, asynchronous, undocumented, flaky, refactored, scalable",
    qual="down since the deploy, covered by tests, too slow under load, not thread-safe, written "
    "in Python, behind the firewall, full of race conditions, waiting for code review, "
    "compatible with the old version, missing an index, out of memory, shipped to production",
    stuff="source code, log files, unit tests, user passwords, packets, type hints, null "
    "pointers, database rows, access tokens, server logs, cookies, dependencies, error messages, "
    "JSON",
    tool="debugger, code editor, terminal, version control, profiler, linter, test suite, "
    "container, shell script, dashboard, keyboard",
    place="in production, on the staging server, in the main branch, behind the load balancer, "
    "in the cloud, at runtime, in the test suite, on the command line, in the latest release, in "
    "the log files",
    cause="a null pointer, a race condition, a missing index, an expired certificate, a bad "
    "merge, a full disk, an infinite loop, a stale cache",
    measure="""
{num} lines of code
{small} failing tests
{num} gigabytes of {stuff}
{num} requests a second
{small} pull requests
""",
    idea="caching, memory management, code review, version control, concurrency, database "
    "design, automated testing, encryption, the parsing of JSON",
    vp="""
debug the {adj} {n} {place}
deploy the {n} {place}
refactor {num} lines of code {place}
write unit tests for the {n}
merge the {adj} branch into the {n}
encrypt {stuff} {place}
roll back the {n} because of {cause}
patch the {n} {place}
compile the {adj} {n} with {stuff}
index {num} gigabytes of {stuff} in the database
restart the server {place}
commit {stuff} to the repository
review {num} lines of code {place}
parse {stuff} with a_ {adj} parser
install the {n} on {small} machines
delete {stuff} {place}
profile the {n} with the {tool}
document the {adj} {n} for new users
cache {stuff} {place}
rewrite the {n} in (Rust|Python|plain C|another language)
scan {stuff} for (viruses|bugs|leaked passwords|secrets)
""",
    hap="""
the {n} / crash {place}
the server / return {stuff}
the {n} / leak {num} megabytes an hour
the build / fail after {cause}
the {adj} {n} / time out {place}
users // report a_ {adj} {n}
the tests // pass {place}
the {n} / overwrite {stuff}
the query / scan {num} gigabytes of {stuff}
a hacker / steal {stuff} {place}
the {n} / throw an exception {place}
the update / break the {adj} {n}
""",
    fact="""
a_ {adj} {n} should never store {stuff} in plain text
{cause} can bring down the whole {n}
every {n} needs unit tests and clear error messages
{stuff} / belong in version control
a_ {n} that reads {stuff} must check for errors
the fastest {n} is useless with a stale cache
""",
)
