"""The style of a card in a notebook; nothing outside the card is touched."""

STYLE = """
.dlb-card{font:14px/1.45 system-ui,-apple-system,"Segoe UI",sans-serif;color:#1d2129;background:#fff;
border:1px solid #d9dde3;border-radius:8px;padding:12px 16px;max-width:880px;box-sizing:border-box;
--quiet:#5c6470;--line:#e6e9ee;--for:#e15f4d;--against:#4382c3;--plain:#7a8699;color-scheme:light}
.dlb-card .dlb-head{display:flex;flex-wrap:wrap;gap:2px 12px;align-items:baseline;overflow-wrap:anywhere}
.dlb-card .dlb-head b{font-size:15px}
.dlb-card .dlb-head span,.dlb-card small,.dlb-card p,.dlb-card figcaption{color:var(--quiet);font-size:12.5px}
.dlb-card p{margin:4px 0}
.dlb-card .dlb-part{margin-top:12px;padding-top:8px;border-top:1px solid var(--line)}
.dlb-card h4{font-size:13px;font-weight:600;margin:0 0 4px;overflow-wrap:anywhere}
.dlb-card h4 small{font-weight:400;margin-left:6px}
.dlb-card table{border-collapse:collapse;margin:0;font-size:13px;border:0;table-layout:auto}
.dlb-card th,.dlb-card td{text-align:left;padding:2px 14px 2px 0;border:0;background:none;color:inherit;
font-weight:400;vertical-align:middle;overflow-wrap:anywhere}
.dlb-card th{color:var(--quiet);font-size:12px}
.dlb-card tr,.dlb-card tbody tr:nth-child(odd),.dlb-card tbody tr:hover{background:none}
.dlb-card td:nth-child(n+2){font-variant-numeric:tabular-nums;text-align:right;white-space:nowrap}
.dlb-card th:nth-child(n+2){text-align:right}
.dlb-card .dlb-told th:last-child,.dlb-card .dlb-told td:last-child{text-align:left;white-space:normal}
.dlb-card .dlb-sum td{border-top:1px solid var(--line);font-weight:600}
.dlb-card .dlb-bar{position:relative;display:inline-block;width:120px;height:9px;vertical-align:middle}
.dlb-card .dlb-bar::before{content:"";position:absolute;left:50%;top:-2px;bottom:-2px;border-left:1px solid var(--line)}
.dlb-card .dlb-plain::before{left:0}
.dlb-card .dlb-bar i{position:absolute;top:0;bottom:0;border-radius:1px;background:var(--plain)}
.dlb-card .dlb-bar .dlb-for{background:var(--for)}
.dlb-card .dlb-bar .dlb-against{background:var(--against)}
.dlb-card .dlb-row{display:flex;flex-wrap:wrap;gap:12px}
.dlb-card figure{margin:2px 0 6px}
.dlb-card img{image-rendering:pixelated;border:1px solid var(--line);border-radius:3px;display:block;max-width:100%}
@media (prefers-color-scheme:dark){.dlb-card{color:#e4e7ec;background:#1c1f24;border-color:#3a4049;
--quiet:#9ba5b3;--line:#343a43;--plain:#8b97a8;color-scheme:dark}}
""".replace("\n", "")
