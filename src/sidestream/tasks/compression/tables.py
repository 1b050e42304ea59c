"""The data behind the extractive digest: cue words by language and identifiers by kind.

A cue says what a sentence is for: a decision, a constraint, a cause, a fix, open work, a failure, a
change, a measurement. Words are matched casefolded and whole; a trailing `*` matches any ending; up to
four words make a phrase; scripts without spaces match as substrings. An identifier kind has a pattern and
a weight: how much is lost when it is lost. A new language is one row per category; nothing else has to
know.
"""

# ruff: noqa: E501, RUF001 -- patterns do not wrap; other languages are the data
from __future__ import annotations

from typing import Final

__all__ = [
    "ABBREVIATIONS",
    "ADVERSATIVES",
    "CONJUNCTIONS",
    "CUE_WEIGHTS",
    "CUE_WORDS",
    "IDENTIFIERS",
    "NAMED",
    "NEGATIONS",
    "NOISE",
    "TELLING",
    "UNSPACED_CUES",
]

CUE_WEIGHTS: Final[dict[str, float]] = {
    "decision": 3.0,
    "constraint": 3.0,
    "cause": 3.2,
    "open": 3.0,
    "fix": 2.4,
    "failure": 2.0,
    "change": 1.6,
    "measure": 1.8,
}

# category -> language -> words and phrases, separated by commas
CUE_WORDS: Final[dict[str, dict[str, str]]] = {
    "decision": {
        "en": "decide*, decision, agreed, chose, choose*, chosen, propos*, suggest*, recommend*, settled on, "
        "instead of, instead, we will use, going with, go with, prefer*, opted, approved, switch* to, "
        "i'll use, rather than, the plan is, plan is to",
        "de": "entschied*, entscheid*, beschlossen, beschluss, vereinbart*, einigen, geeinigt, vorschlag*, "
        "schlage, empfehle*, stattdessen, statt, anstatt, gewählt, wählen, festgelegt, freigegeben, "
        "genehmigt, setzen auf",
        "es": "decid*, decisión, acord*, acuerdo, propong*, propuesta, sugier*, recomiend*, eleg*, optam*, en "
        "lugar de, en vez de, aprob*, preferim*, quedamos en, vamos a usar",
        "fr": "décid*, décision, convenu*, accord, propos*, sugg*, recommand*, choisi*, choix, plutôt que, au "
        "lieu de, opté, retenu*, validé*, préfér*, on part sur",
        "pt": "decid*, decisão, combinam*, propon*, proposta, sugir*, recomend*, escolh*, em vez de, aprovad*",
        "it": "deciso, decisione, concordat*, propong*, suggerisc*, scelt*, invece di, approvat*",
        "nl": "besloten, beslissing, afgesproken, voorstel*, in plaats van, gekozen",
        "ru": "решил*, решение, договорились, предлагаю, выбра*, вместо, утвержд*",
        "ar": "قرر*, قرار, اتفقنا, نقترح, أقترح, بدلا, اخترنا",
    },
    "constraint": {
        "en": "must, must not, mustn't, never, do not, don't, cannot, can't, may not, not allowed, only, "
        "required, requires, require, without, forbidden, at most, at least, no more than, limit*, cap, "
        "capped, constraint*, has to, have to, needs to, shall, unless, keep, except, maximum, minimum, "
        "compatible, unchanged",
        "de": "muss, müssen, darf, dürfen, nicht ändern, niemals, nie, keinesfalls, verboten, nur, ohne, "
        "höchstens, mindestens, maximal, grenze, bedingung*, vorgabe*, erforderlich, zwingend, außer, "
        "bleibt, unverändert, kein*",
        "es": "debe, deben, no debe, nunca, jamás, no se puede, prohibid*, solo, sólo, sin, como máximo, al "
        "menos, como mínimo, límite*, tope, obligatori*, requisito*, salvo, excepto, hay que, máximo, "
        "mínimo, tiene que",
        "fr": "doit, doivent, ne doit, jamais, interdit*, uniquement, seulement, sans, au plus, au moins, "
        "limite*, plafond*, obligatoire*, contrainte*, sauf, il faut, maximum, minimum, exig*",
        "pt": "deve, devem, nunca, proibid*, somente, apenas, sem, no máximo, pelo menos, limite*, "
        "obrigatóri*",
        "it": "deve, devono, mai, vietat*, solo, senza, al massimo, almeno, limite*, obbligatori*",
        "nl": "moet, moeten, mag niet, nooit, alleen, zonder, hoogstens, minstens, verplicht",
        "ru": "нельзя, никогда, должен, должны, только, без, не более, не менее, обязательно, запрещ*",
        "ar": "يجب, لا يجب, ممنوع, فقط, بدون, دون, لا تستخدم, الحد",
    },
    "cause": {
        "en": "root cause, because, cause*, due to, caused by, reason, turns out, the problem is, the issue "
        "is, comes from, that is why, culprit, explains, stems from, leads to, the trigger, since, "
        "off-by-one, result of",
        "de": "ursache*, grund, weil, wegen, liegt an, liegt daran, verursacht*, auslöser, aufgrund, deshalb, "
        "daher, das problem ist, schuld, führt zu, dadurch",
        "es": "causa*, porque, debido a, motivo*, razón, el problema es, se debe, provoc*, culpa, por eso, "
        "origen",
        "fr": "cause*, parce, à cause, raison*, le problème vient, vient de, dû à, due à, provoqu*, c'est "
        "pourquoi, origine, explique*",
        "pt": "causa*, porque, devido a, motivo*, razão, o problema é, por isso",
        "it": "causa*, perché, dovuto a, motivo, il problema è, quindi",
        "nl": "oorzaak, omdat, door, reden, veroorzaakt",
        "ru": "причин*, потому, из-за, вызван*, поэтому, проблема в",
        "ar": "بسبب, السبب, لأن, المشكلة",
    },
    "open": {
        "en": "todo, fixme, next, left, remain*, pending, still, not yet, open question, blocker, blocked, "
        "blocks, waiting, wait for, needs, need, follow-up, later, before we, until, unresolved, "
        "unclear, review*, sign off, signed off, to do, outstanding, missing, will do, starting on, "
        "i'll, deadline, due",
        "de": "offen*, noch, als nächstes, nächste*, ausstehend, steht aus, fehlt, fehlen, blockier*, "
        "blocker, wartet, warten, später, bevor, ungeklärt, freigabe, prüfen, todo, bis, frist, erst "
        "wenn",
        "es": "pendiente*, falta*, siguiente*, próximo, próxima, todavía, aún, queda*, bloque*, esperando, "
        "espera, después, antes de, revis*, hasta, por hacer, plazo, sin resolver",
        "fr": "reste*, prochain*, suivant*, pas encore, encore, en attente, attend*, bloqu*, manque*, avant "
        "de, à faire, plus tard, relecture, jusqu'à, d'ici, échéance, ouvert*, ensuite",
        "pt": "pendente*, falta*, próxim*, ainda, bloque*, esperando, antes de, revis*, prazo",
        "it": "manca*, prossim*, ancora, in attesa, blocc*, prima di, da fare, scadenza",
        "nl": "nog, volgende, wacht*, ontbreekt, geblokkeerd, te doen",
        "ru": "осталось, следующ*, пока, ещё, ждём, ждем, ожида*, блокир*, срок, нужно",
        "ar": "بقي, التالي, لم يتم, في انتظار, قبل, الخطوة التالية",
    },
    "fix": {
        "en": "fix*, resolved, solved, solution, now works, works now, passes, passing, passed, green, "
        "restored, recovered, reverted, rolled back, within, confirmed, verified, repaired, success*, "
        "no longer, done",
        "de": "behoben, gelöst, lösung, korrigiert, funktioniert, grün, wiederhergestellt, zurückgerollt, "
        "bestätigt, erfolgreich, repariert, beseitigt, läuft wieder, nicht mehr",
        "es": "corregid*, corrig*, resuelt*, solucion*, arregl*, funciona, verde, restaurad*, confirmad*, ya "
        "no, listo",
        "fr": "corrig*, résolu*, solution, réparé*, fonctionne, vert, restauré*, confirmé*, rétabli*, ne plus",
        "pt": "corrig*, resolvid*, solução, funciona, verde, restaurad*, confirmad*",
        "it": "corrett*, risolt*, soluzione, funziona, ripristinat*, confermat*",
        "nl": "opgelost, hersteld, werkt, oplossing",
        "ru": "исправ*, решено, работает, восстановлен*, подтвержд*",
        "ar": "تم إصلاح, حل, يعمل, تم حل, الحل",
    },
    "failure": {
        "en": "error*, fail*, crash*, exception, broken, breaks, broke, lost, loses, denied, timeout, timed "
        "out, refused, rejected, wrong, bug, leak*, stale, corrupt*, red, traceback, fatal, panic, "
        "killed, duplicate*, exceeded, missed, unreachable, invalid, warning, regression, incident, "
        "outage, complain*",
        "de": "fehler*, fehlgeschlagen, schlägt fehl, abgestürzt, absturz, kaputt, defekt, verloren, "
        "abgelehnt, zeitüberschreitung, störung, ausfall, ausgefallen, falsch, rot, ungültig, voll, "
        "abgelaufen, verweigert",
        "es": "error*, fall*, rot*, perdid*, rechaz*, caíd*, incorrect*, inválid*, denegad*, queja*, "
        "problema*, vencid*",
        "fr": "erreur*, échou*, échec*, panne*, cassé*, perdu*, refus*, rejet*, incorrect*, invalide*, "
        "plainte*, expiré*",
        "pt": "erro*, falh*, quebr*, perdid*, rejeit*, inválid*, queda",
        "it": "errore, errori, fallit*, rotto, perso, rifiutat*, guasto",
        "nl": "fout*, mislukt, kapot, verloren, geweigerd, storing",
        "ru": "ошибк*, сбой, упал*, сломан*, потерян*, отказ*, неверн*",
        "ar": "خطأ, فشل, تعطل, مفقود, رفض",
    },
    "change": {
        "en": "created, added, removed, replaced, renamed, moved, changed, introduced, raised, lowered, "
        "increased, switched, migrated, deployed, released, upgraded, branch, migration, commit*, "
        "wrote, implemented, pushed, enabled, disabled, set to, scheduled, booked, installed, merged, "
        "split, updated, configured",
        "de": "erstellt, angelegt, hinzugefügt, entfernt, ersetzt, umbenannt, verschoben, geändert, "
        "eingeführt, erhöht, gesenkt, umgestellt, migriert, ausgerollt, eingespielt, aktualisiert, "
        "aktiviert, deaktiviert, branch, gesetzt",
        "es": "cread*, añad*, agreg*, elimin*, quitad*, reemplaz*, sustitu*, renombr*, mov*, cambi*, sub*, "
        "baj*, aument*, migr*, despleg*, actualiz*, activ*, desactiv*, rama, publicad*, reserv*",
        "fr": "créé*, ajouté*, supprimé*, retiré*, remplacé*, renommé*, déplacé*, changé*, augment*, baissé*, "
        "migré*, déployé*, activé*, désactivé*, branche, passé*, publié*, réservé*, mis à jour",
        "pt": "criad*, adicion*, remov*, substitu*, alterad*, aument*, atualiz*",
        "it": "creat*, aggiunt*, rimoss*, sostituit*, cambiat*, aument*, aggiornat*",
        "nl": "gemaakt, toegevoegd, verwijderd, vervangen, gewijzigd, verhoogd",
        "ru": "создал*, добавил*, удалил*, заменил*, изменил*, увелич*, обновил*",
        "ar": "أنشأت, أضفت, حذفت, استبدل, غيرت, رفع",
    },
    "measure": {
        "en": "went from, down from, up from, dropped, drops, rose, improved, faster, slower, median, "
        "average, p95, p99, baseline, measured, total, score, reduced, saves, saved, takes, took, "
        "costs, cost, percent, per",
        "de": "gesunken, gestiegen, von vorher, schneller, langsamer, mittelwert, gemessen, insgesamt, "
        "reduziert, dauert, dauerte, kosten, kostet, prozent, verbessert, pro",
        "es": "bajó, subió, mejoró, más rápido, más lento, media, promedio, medid*, total, cuesta, costo, "
        "coste, tarda, reduj*, ahorr*, por ciento, pas*",
        "fr": "passé de, baissé, monté, plus rapide, plus lent, moyenne, médiane, mesuré*, total, coût*, "
        "coûte*, prend, réduit*, économi*, gagn*",
        "pt": "caiu, subiu, melhor*, média, medid*, total, custa, custo, reduz*",
        "it": "sceso, salito, migliorat*, media, misurat*, totale, costa, costo, ridott*",
        "nl": "gedaald, gestegen, sneller, gemeten, totaal, kost",
        "ru": "снизил*, вырос*, быстрее, медленнее, среднее, измер*, итого, стоит",
        "ar": "انخفض, ارتفع, أسرع, المتوسط, تكلفة",
    },
}

UNSPACED_CUES: Final[dict[str, str]] = {
    "decision": "决定 決定 決め 同意 建议 建議 提议 提案 采用 採用 选择 選択 方案 改用 代わりに 定下 합의 결정 제안",
    "constraint": "必须 必須 必要 不能 不得 不可 不要 禁止 只能 仅 限 至少 最多 以内 以上 以下 だけ のみ ないで 守 保持 상한 반드시 금지",
    "cause": "原因 因为 由于 导致 所以 因此 ため から 原来 根本 せい 理由 때문 원인",
    "open": "待办 待 尚未 还没 还需 下一步 剩 未完成 阻塞 等 残 次は 次に まだ 未 保留 今後 課題 之前 までに 后续 다음 남은 대기",
    "fix": "修复 修正 解决 解決 恢复 直し 直り 完了 通过 正常 確認 确认 成功 수정 해결 완료",
    "failure": "错误 错 失败 失敗 异常 異常 报错 丢失 超时 拒绝 エラー 落ち 障害 不具合 崩溃 投诉 苦情 故障 오류 실패",
    "change": "新增 增加 添加 创建 删除 替换 改为 改成 变更 変更 追加 削除 置き換え 作成 上线 更新 移行 提交 発注 추가 변경 삭제",
    "measure": "从 降到 升到 提高 降低 减少 増 減 平均 合计 合計 总共 下降 上升 改善 約 耗时 비용 평균",
}

# (kind, weight, pattern); the first kind that matches at a place wins. L and R are identifier boundaries.
_L = r"(?<![A-Za-z0-9_])"
_R = r"(?![A-Za-z0-9_])"
_EXT = (
    "py|pyi|js|jsx|ts|tsx|mjs|vue|svelte|go|rs|java|kt|swift|rb|php|c|h|cc|cpp|hpp|cs|sh|sql|toml|yaml|yml|json|jsonl"
    "|ini|cfg|conf|env|md|rst|txt|csv|tsv|parquet|xlsx|pdf|docx|html|css|scss|log|db|sqlite|lock|xml|proto|tf|service"
    "|gz|zip|tar|png|svg|webp|jpg|pem|crt|key|ipynb|dart|gradle|plist|wasm|exs?|erl|hs|lua|pl|r|scala"
)
_UNIT = (
    r"(?:ms|µs|us|ns|s|sec|secs|seconds?|min|mins|minutes?|h|hrs?|hours?|days?|weeks?|months?|years?|[KMGT]i?B|kb|mb|gb|B|bytes?"
    r"|rows?|requests?|req/s|rps|qps|tps|users?|events?|messages?|tokens?|lines?|files?|times|attempts?|retries|points?"
    r"|px|mm|cm|m|km|kg|g|t|l|°C|W|kW|kWh|V|A|Hz|MHz|GHz|bps|Mbit/s|dpi|pp"
    r"|Sekunden?|Minuten?|Stunden?|Tagen?|Tage?|Wochen?|Monate?n?|Jahre?n?|Zeilen|Anfragen|Uhr|Prozent|Stück"
    r"|segundos?|minutos?|horas?|días?|semanas?|mes(?:es)?|años?|filas|usuari[oa]s|personas|plazas|por ciento|clientes"
    r"|secondes?|heures?|jours?|semaines?|mois|ans?|années?|lignes|personnes|places|tonnes?|euros?|EUR|USD|CHF|dollars?|pesos"
    r"|reais|dias?|meses|ore|giorni|settimane|mesi|anni|秒|分钟|分|小时|時間|时|時|天|日|周|週間|个月|ヶ月|か月|月|年|元|万元|万|円|人|件|台|条|次|个|個|名|行|倍|版|号|층|원|명|분|초|часов|дней|руб)"
)
_MONTH = r"jan|feb|febr|mar|mär|apr|abr|avr|may|mai|mayo|jun|jul|juin|juil|aug|ago|août|sep|oct|okt|nov|dec|dez|dic|déc|ene|fév|out"
_NUM = r"[+-]?\d+(?:[.,\u00a0\u202f' ]\d{3})*(?:[.,]\d+)?"

IDENTIFIERS: Final[tuple[tuple[str, float, str], ...]] = (
    ("url", 1.6, r"https?://[^\s<>\"'`)\]}，。、]+[^\s<>\"'`)\]}，。、.,;:!?]"),
    ("literal", 1.6, r"`[^`\n]{2,80}`"),
    (
        "before_after",
        3.0,
        rf"{_NUM}\s?%?(?:\s?{_UNIT}{_R})?\s?(?:->|→|=>|⇒)\s?{_NUM}\s?%?(?:\s?{_UNIT}{_R})?",
    ),
    (
        "setting",
        2.4,
        rf"{_L}[A-Za-z_][\w.-]*\s?=\s?(?:{_NUM}(?:%|[a-zA-Z]{{1,3}}{_R})?|true|false|on|off|[A-Z][A-Z_]{{2,}})(?![\w.(])",
    ),
    (
        "setting",
        2.2,
        rf"{_L}[A-Za-z]\w*[_.-][\w.-]+:\s?(?:{_NUM}(?:%|[a-zA-Z]{{1,3}}{_R})?|true|false)(?![\w.(])",
    ),
    (
        "exception",
        3.0,
        rf"{_L}(?:[A-Za-z_]\w*\.)*[A-Z][A-Za-z0-9]*(?:Error|Exception|Timeout|Failure|Fault|Violation|Killed){_R}",
    ),
    (
        "error_code",
        2.8,
        rf"{_L}(?:HTTP|[Ss]tatus|[Cc]ode|SQLSTATE|exit|errno|Statuscode|código|Fehlercode)\s?(?:code\s)?[=:]?\s?\d{{2,5}}{_R}",
    ),
    ("error_code", 2.8, rf"{_L}[A-Z]{{1,5}}-?\d{{3,6}}{_R}"),
    ("constant", 2.8, rf"{_L}[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+{_R}"),
    ("ticket", 2.4, rf"{_L}[A-Z][A-Z0-9]+-\d+{_R}|(?<![\w&])#\d{{2,}}{_R}"),
    ("test", 2.8, rf"{_L}test_\w+|{_L}Test[A-Z]\w+(?:[.:#]+\w+)?"),
    (
        "path",
        2.0,
        rf"(?<![\w./-])(?:[~.]{{0,2}}/)?(?:[\w.@+-]+/)+[\w.@+*-]*\.(?:{_EXT}){_R}|(?<![\w./-])/(?:[\w.@+-]+/)+[\w.@+-]+",
    ),
    ("file", 1.8, rf"(?<![\w./-])[A-Za-z0-9_][\w-]*(?:\.[\w-]+)*\.(?:{_EXT}){_R}"),
    (
        "branch",
        2.4,
        r"(?<![\w./-])(?:feat|feature|fix|bugfix|hotfix|release|chore|refactor|wip|perf|docs|origin)/[\w./-]*\w",
    ),
    ("slashed", 1.2, r"(?<![\w./-])[A-Za-z][\w.-]*(?:/[A-Za-z][\w.-]*)+[\w]"),
    ("commit", 2.6, rf"{_L}(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{{7,40}}{_R}"),
    ("address", 2.0, rf"{_L}\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?::\d+)?{_R}|[\w.+-]+@[\w-]+\.[\w.-]*\w"),
    ("version", 2.0, rf"{_L}v?\d+\.\d+\.\d+(?:[-+][\w.]+)?{_R}|{_L}v\d+(?:\.\d+)?{_R}"),
    (
        "date",
        1.8,
        rf"{_L}\d{{4}}[-/.]\d{{2}}(?:[-/.]\d{{2}})?{_R}|{_L}(?:0?[1-9]|[12]\d|3[01])\.(?:0?[1-9]|1[0-2])\.(?:\d{{2,4}}{_R})?",
    ),
    ("date", 1.8, r"\d{4}年(?:\d{1,2}月)?(?:\d{1,2}日)?|\d{1,2}月\d{1,2}[日号]"),
    (
        "date",
        1.8,
        rf"{_L}\d{{1,2}}(?:st|nd|rd|th|er|\.)?\s(?:de\s|of\s)?(?i:{_MONTH})\w*|{_L}(?i:{_MONTH})\w*\s\d{{1,2}}{_R}",
    ),
    (
        "time",
        1.2,
        rf"{_L}\d{{1,2}}:\d{{2}}(?::\d{{2}})?{_R}|{_L}\d{{1,2}}\s?[ap]m{_R}|{_L}\d{{1,2}}h\d{{2}}{_R}",
    ),
    (
        "quantity",
        1.9,
        rf"(?:[$€£¥₹]|R\$)\s?{_NUM}(?:\s?(?:[kKmM]|million|billion)\b)?|(?<![\w.]){_NUM}\s?(?:%|‰|[€$£¥])",
    ),
    ("quantity", 1.9, rf"(?<![A-Za-z0-9_.])[p<>≤≥~≈×x]?{_NUM}\s?-?{_UNIT}(?![A-Za-z0-9_])"),
    ("call", 1.7, rf"{_L}[A-Za-z_]\w*(?:\.\w+)*\(\)"),
    ("expression", 2.0, rf"{_L}[a-z_]\w*_\w+\s[+*/%-]\s\d+{_R}"),
    ("dotted", 1.6, rf"{_L}[A-Za-z_]\w*[a-z]\w*(?:\.[A-Za-z_]\w+)+{_R}"),
    ("snake", 1.5, rf"{_L}[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+{_R}"),
    ("camel", 1.5, rf"{_L}(?:[A-Z][a-z0-9]+(?:[A-Z][a-z0-9]*)+|[a-z]+(?:[A-Z][a-z0-9]*)+){_R}"),
    ("flag", 1.3, r"(?<![\w-])--[a-z][\w-]+(?:=\w+)?"),
    (
        "quoted",
        1.3,
        r"「[^」\n]{1,40}」|『[^』\n]{1,40}』|《[^》\n]{1,40}》|“[^”\n]{2,50}”|«\s?[^»\n]{2,50}»|„[^“”\n]{2,50}[“”]|\"[^\"\n]{2,50}\"",
    ),
    ("kebab", 1.0, rf"{_L}[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)+{_R}"),
    ("acronym", 0.8, rf"{_L}[A-Z][A-Z0-9]{{1,6}}s?{_R}"),
    ("foreign", 0.6, r"[ァ-ヴー]{3,}"),
    ("name", 0.9, r"(?<=[a-zà-ÿа-я] )[A-ZÀ-ÞА-Я][a-zà-ÿа-я]{2,}(?:\s[A-ZÀ-ÞА-Я][a-zà-ÿа-я]{2,})?"),
    ("number", 0.9, rf"(?<![\w.,]){_NUM}(?![\w%])"),
)

# Kinds that mean something wherever they stand; the others weigh little in a tool's output.
TELLING: Final[frozenset[str]] = frozenset(
    ("exception", "error_code", "constant", "ticket", "test", "branch", "commit", "before_after", "setting")
)
# Kinds that mean something without a sentence around them.
NAMED: Final[frozenset[str]] = TELLING | frozenset(
    "path file literal url address version date dotted snake camel kebab slashed name".split(),  # noqa: SIM905
)

# A quote is never cut where one of these would be cut off: that would turn its meaning round.
NEGATIONS: Final[str] = (
    r"(?i)\b(?:not|no|nor|never|neither|none|without|unless|if|cannot|\w+n['’]t|nicht|kein\w*|nie|niemals|ohne|weder|falls|wenn"
    r"|ni|sin|nunca|jamás|tampoco|si|ne|n['’]\w+|pas|jamais|sans|aucune?|não|nem|sem|non|senza|mai|niet|geen|zonder"
    r"|не|нет|ни|без|если)\b|[不没沒无無未非别]|ない|ません|なし|ず|않|없|لا|لم|لن|ليس|بدون"
)

# Lines of tools that say nothing about this conversation.
NOISE: Final[str] = (
    r"^(?:Requirement already satisfied|Collecting |Using cached|Downloading |Installing |Preparing |Building wheel"
    r"|Unpacking |Setting up |Reading package|Get:\d|Hit:\d|added \d+ packages|npm (?:WARN|notice)|warning: LF will"
    r"|remote: |Receiving objects|Resolving deltas|\s*at .+\(.+:\d+:\d+\)$|\s*File \".+(?:site-packages|lib/python)"
    r"|total \d+$|drwx|-rw-|Successfully installed|\[?[=#.\s>-]{6,})"
)

# A full stop after one of these ends no sentence.
ABBREVIATIONS: Final[str] = (
    "e.g. i.e. vs. cf. approx. fig. dr. mr. mrs. z.b. bzw. ca. d.h. u.a. evtl. ggf. nr. inkl. "
    "p.ej. ej. sr. sra. aprox. núm. p.ex. env. mme. réf."
)
# A clause may begin at these …
CONJUNCTIONS: Final[str] = (
    "and|so|because|while|which|until|instead|und|weil|damit|sodass|wobei|deshalb"
    "|porque|así que|mientras|et|car|parce|donc|tandis|потому|чтобы"
)
# … and never at these: they take back what stands before them.
ADVERSATIVES: Final[str] = (
    "but|except|unless|if|only|however|though|although|aber|sondern|außer|falls|wenn|jedoch|pero|sino|salvo|excepto|aunque|si"
    "|mais|sauf|mas|exceto|però|ma|tranne|maar|tenzij|но|кроме|если"
)
