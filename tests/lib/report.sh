# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# How scripts/test reads the KTAP that groups print, and tells of it: as one KTAP document
# with nested subtests to a pipe, as lines to a terminal, as JUnit XML, and as what --list
# shows the next time. Groups run side by side; a group is known by its place in ids.

red='' green='' yellow='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	red=$'\e[31m' green=$'\e[32m' yellow=$'\e[33m' plain=$'\e[m'
fi
passed=0 failed=0 skipped=0
failures=() # two words each: the test and the group's log
# Of each group: files, its plan, how many tests it told of, how many of them were wanted and
# how many failed, lines that explain the next one, when it began and its last one ended.
log_of=() results_of=() plan=() told=() shown=() bad=() explains=() began=() since=() took=()
# A pipe gets the lines of one group at a time, in order; those of others are held back.
front=0 held=() suite_place=0 group_place=0 suite_bad=0
declare -A suite_ms suite_results

now() {
	ms=$((${EPOCHREALTIME/[.,]/} / 1000))
}

# seconds MS
seconds() {
	printf '%d.%d s' $(($1 / 1000)) $(($1 % 1000 / 100))
}

# count RESULT SUITE: for the table at the end.
count() {
	local of=$2:$1
	suite_results[$of]=$((${suite_results[$of]:-0} + 1))
}

begin_group() {
	local i=$1 ms folder=$results/${ids[$1]%%:*}
	mkdir -p "$folder"
	log_of[i]=$folder/${ids[i]#*:}.log results_of[i]=$folder/${ids[i]#*:}.results
	: >"${log_of[i]}"
	: >"${results_of[i]}.partial"
	now
	plan[i]='' told[i]=0 shown[i]=0 bad[i]=0 explains[i]='' held[i]='' began[i]=$ms since[i]=$ms
	[ "$i" != "$front" ] || open_front
}

# say GROUP LINE
say() {
	if [ -t 1 ]; then
		return
	elif [ "$1" = "$front" ]; then
		printf '    %s\n' "$2"
	else
		held[$1]+="    $2"$'\n'
	fi
}

# groups_of SUITE: how many.
groups_of() {
	local id number=0
	for id in "${ids[@]}"; do [ "${id%%:*}" != "$1" ] || number=$((number + 1)); done
	printf '%d' "$number"
}

open_front() {
	local suite=${ids[front]%%:*}
	[ ! -t 1 ] || return 0
	if [ "$group_place" = 0 ]; then
		printf '  KTAP version 1\n  # Subtest: %s\n  1..%d\n' "$suite" "$(groups_of "$suite")"
	fi
	printf '    KTAP version 1\n    # Subtest: %s\n%s' "${ids[front]#*:}" "${held[front]}"
	held[front]=''
}

# The front group has ended: so may have those that come next.
close_front() {
	local suite=${ids[front]%%:*} words=ok
	group_place=$((group_place + 1))
	[ "${bad[front]}" = 0 ] || { words='not ok' suite_bad=1; }
	[ "${shown[front]}" != 0 ] || words+=' # SKIP no test of this name'
	[ -t 1 ] || printf '  %s %d %s%s\n' "${words%% #*}" "$group_place" "${ids[front]#*:}" "${words#"${words%% #*}"}"
	front=$((front + 1))
	if [ "${ids[front]-}" = '' ] || [ "${ids[front]%%:*}" != "$suite" ]; then
		suite_place=$((suite_place + 1)) words=ok
		[ "$suite_bad" = 0 ] || words='not ok'
		[ -t 1 ] || printf '%s %d %s\n' "$words" "$suite_place" "$suite"
		group_place=0 suite_bad=0
	fi
}

# take_result GROUP ok|not ok NAME: NAME may end with `# SKIP why`.
take_result() {
	local i=$1 name=${3%% # SKIP*} result=PASS colour=$green ms line
	now
	told[i]=$((told[i] + 1))
	case $2$3 in
	not*) result=FAIL colour=$red ;;
	*'# SKIP'*) result=SKIP colour=$yellow ;;
	esac
	# shellcheck disable=SC2053 # a glob
	if [[ $name == ${filters[i]} ]]; then
		shown[i]=$((shown[i] + 1))
		while IFS= read -r line; do [ -z "$line" ] || say "$i" "$line"; done <<<"${explains[i]}"
		say "$i" "$2 ${shown[i]} $3"
		ran+=("${ids[i]}:$name")
		[ ! -t 1 ] || printf '%s%s%s %s:%s\n' "$colour" "$result" "$plain" "${ids[i]}" "$3"
		case $result in
		PASS) passed=$((passed + 1)) ;;
		SKIP) skipped=$((skipped + 1)) ;;
		FAIL)
			failed=$((failed + 1)) bad[i]=$((bad[i] + 1))
			failures+=("${ids[i]}:$name" "${log_of[i]}")
			[ ! -t 1 ] || printf '%s' "${explains[i]}" | sed 's/^/     /'
			;;
		esac
		count "$result" "${ids[i]%%:*}"
		printf '%s\t%d\t%s\t%s\n' "$result" $((ms - since[i])) "$name" "${explains[i]//$'\n'/$'\r'}" >>"${results_of[i]}.partial"
	fi
	explains[i]='' since[i]=$ms
}

# take_line GROUP LINE
take_line() {
	local line=${2%$'\r'}
	printf '%s\n' "$line" >>"${log_of[$1]}"
	if [[ $line =~ ^(ok|not\ ok)\ [0-9]+\ *(-\ )?(.*)$ ]]; then
		take_result "$1" "${BASH_REMATCH[1]}" "${BASH_REMATCH[3]}"
	elif [[ $line =~ ^1\.\.([0-9]+) ]]; then
		plan[$1]=${BASH_REMATCH[1]}
	elif [[ ! $line =~ ^K?TAP\ version ]]; then
		# A test's own subtests stay as they are.
		[[ $line =~ ^(#|\ +(ok|not\ ok|KTAP|1\.\.|#)) ]] || line="# $line"
		explains[$1]+=$line$'\n'
	fi
}

# end_group GROUP STATUS: that a stream ends early, or that a command fails though its tests
# pass, is a failure of its own.
end_group() {
	local i=$1 status=$2 wrong='' suite=${ids[$1]%%:*} ms
	if [ "${plan[i]:-none}" != "${told[i]}" ]; then
		wrong="printed ${told[i]} results, and a plan (1..N) of ${plan[i]:-none}; exit status $status"
	elif [ "${filters[i]}" = '*' ] && [ "${told[i]}" = 0 ]; then
		wrong="no tests, exit status $status"
	elif [ "$status" != 0 ] && [ "${bad[i]}" = 0 ] && [ "${shown[i]}" = "${told[i]}" ]; then
		wrong="exit status $status, though its tests passed"
	fi
	if [ -n "$wrong" ]; then
		explains[i]+="# $wrong"$'\n'
		filters[i]="@(${filters[i]}|ends as it should)"
		take_result "$i" 'not ok' 'ends as it should'
	fi
	now
	took[i]=$((ms - began[i]))
	suite_ms[$suite]=$((${suite_ms[$suite]:-0} + took[i]))
	# What only a part ran says nothing of the whole.
	if [ "${filters[i]}" = '*' ] || [ -n "$wrong" ]; then
		printf 'ALL\t%d\t\t\n' "${took[i]}" >>"${results_of[i]}.partial"
		mv "${results_of[i]}.partial" "${results_of[i]}"
	fi
	while [ -n "${took[front]-}" ]; do
		close_front
		[ -z "${began[front]-}" ] || open_front
	done
}

begin_report() {
	local id names=''
	[ ! -t 1 ] || return 0
	for id in "${ids[@]}"; do names+=${id%%:*}$'\n'; done
	printf 'KTAP version 1\n1..%d\n' "$(sort -u <<<"$names" | grep -c .)"
}

# end_report: each suite's time, the failures again, and the sum.
end_report() {
	local i suite mark='# '
	[ ! -t 1 ] || mark=''
	printf '%s%-12s %6s %6s %7s %9s\n' "$mark" suite passed failed skipped time
	for suite in "${order[@]}"; do
		printf '%s%-12s %6d %6d %7d %9s\n' "$mark" "$suite" "${suite_results[$suite:PASS]:-0}" \
			"${suite_results[$suite:FAIL]:-0}" "${suite_results[$suite:SKIP]:-0}" "$(seconds "${suite_ms[$suite]:-0}")"
	done
	for ((i = 0; i < ${#failures[@]}; i += 2)); do
		printf '%s%sFAIL%s %s\n%s     %s\n' "$mark" "$red" "$plain" "${failures[i]}" "$mark" "${failures[i + 1]}"
	done
	printf '%sall took %s\n' "$mark" "$(seconds "$1")"
	printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
}

# last_ms SUITE [GROUP]: how long it took the last time, or nothing.
last_ms() {
	{ find "$results/$1" -name "${2:-*}.results" -exec cat {} + 2>/dev/null || true; } |
		awk -F'\t' '$1 == "ALL" { all += $2; n = 1 } END { if (n) print all }'
}

list_suites() {
	local suite ms
	printf '%-12s %-8s %9s  %s\n' suite runs 'took last' shows
	for suite in "${order[@]}"; do
		ms=$(last_ms "$suite")
		printf '%-12s %-8s %9s  %s\n' "$suite" "$(header "$suite" when)" "${ms:+$(seconds "$ms")}" "$(header "$suite" shows)"
	done
}

# The chosen groups, and the tests that they had the last time.
list_groups() {
	local i file ms
	for i in "${!ids[@]}"; do
		file=$results/${ids[i]%%:*}/${ids[i]#*:}.results
		ms=$(last_ms "${ids[i]%%:*}" "${ids[i]#*:}")
		printf '%9s  %s\n' "${ms:+$(seconds "$ms")}" "${ids[i]}"
		[ ! -e "$file" ] || while IFS=$'\t' read -r result ms name _; do
			# shellcheck disable=SC2053 # a glob
			[[ $result == ALL || $name != ${filters[i]} ]] || printf '%9s  %s:%s\n' "$(seconds "$ms")" "${ids[i]}" "$name"
		done <"$file"
	done
}

# write_junit FILE
write_junit() {
	local i file
	{
		printf '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites tests="%d" failures="%d" skipped="%d">\n' \
			$((passed + failed + skipped)) "$failed" "$skipped"
		for i in "${!ids[@]}"; do
			printf '<testsuite name="%s" time="%d.%03d">\n' "$(xml <<<"${ids[i]}")" $((took[i] / 1000)) $((took[i] % 1000))
			file=${results_of[i]}.partial
			[ -e "$file" ] || file=${results_of[i]}
			xml <"$file" | awk -F'\t' -v class="$(xml <<<"${ids[i]//:/.}")" '
				$1 == "ALL" { next }
				{
					printf "<testcase classname=\"%s\" name=\"%s\" time=\"%.3f\"", class, $3, $2 / 1000
					if ($1 == "SKIP") print "><skipped/></testcase>"
					else if ($1 == "FAIL") { gsub("\r", "\n", $4); printf "><failure message=\"not ok\">%s</failure></testcase>\n", $4 }
					else print "/>"
				}'
			printf '</testsuite>\n'
		done
		printf '</testsuites>\n'
	} >"$1"
}

# Text as XML has it, without the characters that it cannot have.
xml() {
	tr -d '\000-\010\013\014\016-\037' | sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g; s/"/\&quot;/g'
}
