package route53

const childVariable = "BERTH_ROUTE53_CHILD"

func crashingChild() {}
