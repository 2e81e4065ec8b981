"""Attribution of any module or callable; nothing here knows PyHealth."""
